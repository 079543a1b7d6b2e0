//! Object stores.

use muster_repository::storage::{File, FileKind, conformance, conformance::Promises};
use muster_testkit::stores;

use crate::{Shared, fresh, store, unreliable};

const S3: &[(&str, &str)] =
    &[("AWS_ACCESS_KEY_ID", "muster"), ("AWS_SECRET_ACCESS_KEY", "muster-secret")];

/// Both servers look whether an object is there and make it then: of several conditional writes at
/// once more than one may succeed, which Amazon's own service excludes.
const NO_RACES: Promises = Promises { creates_once: false, ..Promises::ALL };

#[test]
fn s3_conforms() {
    let Some(server) = stores::s3(&["muster"]) else { return };
    let open = || {
        let url = format!("s3:http://{}/muster/a/{}", server.address(), fresh());
        store(&url, &[], S3)
    };
    conformance::run_promising(NO_RACES, || (Shared(open()), ()));
    let promises = Promises { tells_missing: false, ..NO_RACES };
    conformance::run_promising(promises, || (unreliable(open()), ()));
    // At the root of a bucket, too.
    let root = store(&format!("s3:http://{}/muster", server.address()), &[], S3);
    root.put(File::Config, b"x").unwrap();
    assert_eq!(root.list(FileKind::Config).unwrap().len(), 1);
}

/// Another S3 server, written by others than moto, that checks each request's signature.
#[test]
fn s3_of_another_make_conforms() {
    let Some(server) = stores::s3s(&["muster"]) else { return };
    let [access, secret] = stores::S3S_LOGIN;
    let login = [("AWS_ACCESS_KEY_ID", access), ("AWS_SECRET_ACCESS_KEY", secret)];
    let url = || format!("s3:http://{}/muster/a/{}", server.address(), fresh());
    conformance::run_promising(NO_RACES, || (Shared(store(&url(), &[], &login)), ()));
    let promises = Promises { tells_missing: false, ..NO_RACES };
    conformance::run_promising(promises, || (unreliable(store(&url(), &[], &login)), ()));
}

#[test]
fn azure_conforms() {
    let Some(server) = stores::azure() else { return };
    let endpoint = format!("azure.endpoint=http://{}/{}", server.address(), stores::AZURE_ACCOUNT);
    let login =
        [("AZURE_ACCOUNT_NAME", stores::AZURE_ACCOUNT), ("AZURE_ACCOUNT_KEY", stores::AZURE_KEY)];
    let open = || store(&format!("azure:muster:/a/{}", fresh()), &[&endpoint], &login);
    conformance::run(|| (Shared(open()), ()));
    let promises = Promises { tells_missing: false, ..Promises::ALL };
    conformance::run_promising(promises, || (unreliable(open()), ()));
}

/// No registry ships an emulator of the XML protocol that is spoken here; what it has in common
/// with S3's, moto understands. It does not know Google's condition, so nothing is created anew.
#[test]
fn gcs_reads_lists_and_writes() {
    let Some(server) = stores::s3(&["muster"]) else { return };
    let endpoint = format!("gs.endpoint=http://{}", server.address());
    let storage = store("gs:muster:/a", &[&endpoint], &[("GOOGLE_ACCESS_TOKEN", "token")]);
    storage.prepare().unwrap();
    let pack = conformance::pack(1);
    storage.put(pack, b"0123456789").unwrap();
    assert_eq!(storage.read(pack, 10).unwrap(), b"0123456789");
    let mut buffer = [0; 3];
    storage.read_range(pack, 2, &mut buffer).unwrap();
    assert_eq!(&buffer, b"234");
    assert_eq!(storage.list(FileKind::Pack).unwrap()[0].bytes, 10);
    storage.delete(pack).unwrap();
    assert_eq!(storage.list(FileKind::Pack).unwrap(), []);
}
