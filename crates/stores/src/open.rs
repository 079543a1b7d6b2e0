//! From a location to a store that is ready for use.

use std::{sync::Arc, time::Duration};

use muster_model::Location;
use muster_repository::{
    run::Cancel,
    storage::{LocalStorage, Storage},
};
use object_store::ObjectStore;

use crate::{
    clouds::{self, S3},
    error::StoreError,
    http::Client,
    object::ObjectStorage,
    options::Options,
    pace::{Limits, Pace},
    patient::Patient,
    rest::RestStorage,
    s3::{Archive, Bucket, Locks, Past},
    sftp::SftpStorage,
    stop::Stop,
    variables::Variables,
};

/// How to reach a store.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// What was said about the store.
    pub options: Options,
    /// Where credentials come from.
    pub variables: Variables,
    /// How fast bytes may flow.
    pub limits: Limits,
    /// Hold each new file for so long from its first moment on, where the store can.
    pub hold_new: Option<Duration>,
    /// Whether to give up waiting for a store that may come back.
    pub cancel: Option<Cancel>,
}

/// Makes the client of a store. Nothing is asked of the store yet.
///
/// # Errors
/// Fails when options or credentials make no sense.
pub fn open(location: &Location, settings: &Settings) -> Result<Arc<dyn Storage>, StoreError> {
    let Settings { options, variables, limits, hold_new, cancel } = settings;
    let pace = Arc::new(Pace::new(*limits, Stop::new(cancel.clone())));
    let object = |store: Arc<dyn ObjectStore>, prefix: &str| {
        ObjectStorage::new(store, prefix, location.to_string(), Arc::clone(&pace))
    };
    let connections = location.scheme().map_or(1, |scheme| options.connections(scheme));
    let client = || Client::new(options.authorities().as_deref(), connections, Arc::clone(&pace));
    let patient = |store| Patient::around(store, connections, Arc::clone(&pace));
    Ok(match location {
        Location::Folder(folder) => {
            let folder = LocalStorage::new(folder);
            match *limits == Limits::default() {
                true => Arc::new(folder),
                false => Arc::new(Patient::pacing(folder, pace)),
            }
        }
        Location::S3 { endpoint, bucket, prefix } => {
            let client = client()?;
            let S3 { store, address } =
                clouds::s3(location, (endpoint, bucket), options, variables, client.clone())?;
            let anonymous = options.is_true("s3.unsafe-anonymous-auth");
            let credentials = (!anonymous).then(|| Arc::clone(&store));
            let bucket = Bucket::new(address, credentials, client, Arc::clone(&pace));
            let archive = Archive::new(Arc::clone(&bucket), options.cold());
            match options.as_of() {
                Some(moment) => {
                    let past = Past::new(bucket, archive, prefix, location.to_string(), moment);
                    Arc::new(Patient::around(past, connections, Arc::clone(&pace)))
                }
                None => {
                    let locks = Locks::new(Arc::clone(&bucket), options.hold().wishing(*hold_new));
                    let store = object(store, prefix)?.with(locks, archive);
                    Arc::new(patient(store.deleting_many(bucket)))
                }
            }
        }
        Location::Azure { container, prefix } => {
            let store = clouds::azure(location, container, options, variables, client()?)?;
            Arc::new(patient(object(store, prefix)?))
        }
        Location::Gcs { bucket, prefix } => {
            let store = clouds::gcs(location, bucket, options, variables, client()?)?;
            Arc::new(patient(object(store, prefix)?))
        }
        Location::Rest(rest) => {
            let store = RestStorage::new(rest, variables, client()?, Arc::clone(&pace));
            Arc::new(Patient::around(store, connections, Arc::clone(&pace)))
        }
        Location::Sftp(sftp) => {
            let store = SftpStorage::new(sftp, options, Arc::clone(&pace))?;
            Arc::new(Patient::around(store, connections, Arc::clone(&pace)))
        }
    })
}
