//! Packs of data in an archive, against a server that refuses to read what is archived.

use std::sync::atomic::{AtomicU8, Ordering};

use muster_model::{Class, Fault as _};
use muster_repository::{
    format::pack::BlobKind,
    id::PackId,
    storage::{Archiving, File, Reach, Storage, conformance},
};
use muster_testkit::stores::{
    self,
    front::{Front, Seen},
};

use crate::{fresh, store};

const S3: &[(&str, &str)] =
    &[("AWS_ACCESS_KEY_ID", "muster"), ("AWS_SECRET_ACCESS_KEY", "muster-secret")];

const DATA: &[u8] = b"data";
const TREES: &[u8] = b"trees";

/// Stores a pack of data and one of trees; gives the two.
fn put_both(storage: &dyn Storage) -> (File, File) {
    for (content, holds) in [(DATA, BlobKind::Data), (TREES, BlobKind::Tree)] {
        storage.put_spooled(holds, &conformance::spooled(content, content)).unwrap();
    }
    (File::Pack(PackId::of(DATA)), File::Pack(PackId::of(TREES)))
}

#[test]
fn only_packs_of_data_are_archived_and_they_come_back() {
    let Some(server) = stores::s3_with_locks(&["muster"]) else { return };
    stores::slow_archive(&server);
    let holding = ["s3.storage-class=DEEP_ARCHIVE", "s3.object-lock=1d", "s3.restore-days=2"];
    for options in [&["s3.storage-class=GLACIER", "s3.restore-tier=bulk"][..], &holding] {
        let url = format!("s3:http://{}/muster/a b/{}", server.address(), fresh());
        let storage = store(&url, options, S3);
        assert_eq!(storage.archiving(), Archiving::Expected);
        let (data, trees) = put_both(&*storage);
        storage.put_new(File::Config, b"x").unwrap();
        for hot in [trees, File::Config] {
            assert_eq!(storage.reach(hot).unwrap(), Reach::Ready);
            assert!(storage.read(hot, 10).is_ok());
        }
        assert_eq!(storage.reach(data).unwrap(), Reach::Archived);
        assert_eq!(storage.size(data).unwrap(), 4, "what is archived can be looked at");
        for error in [
            storage.read(data, 10).unwrap_err(),
            storage.read_range(data, 1, &mut [0; 2]).unwrap_err(),
        ] {
            assert_eq!((error.code(), error.class()), ("store-archived", Class::Denied));
            assert!(error.help().unwrap().contains("--warm-up"));
        }
        storage.warm_up(data).unwrap();
        storage.warm_up(data).unwrap();
        // Asked for twice: it looked once, so that the archive had its time.
        assert_eq!(storage.reach(data).unwrap(), Reach::Ready);
        assert_eq!(storage.read(data, 10).unwrap(), DATA);
    }
}

#[test]
fn the_past_comes_back_too() {
    let Some(server) = stores::s3_with_locks(&["muster"]) else { return };
    let url = format!("s3:http://{}/muster/{}", server.address(), fresh());
    let (data, trees) = put_both(&*store(&url, &["s3.storage-class=GLACIER"], S3));
    let past = store(&url, &["s3.as-of=2100-01-01T00:00:00Z"], S3);
    assert_eq!(past.archiving(), Archiving::Possible);
    assert_eq!(past.reach(trees).unwrap(), Reach::Ready);
    assert_eq!(past.reach(data).unwrap(), Reach::Archived);
    assert_eq!(past.read(data, 10).unwrap_err().code(), "store-archived");
    past.warm_up(data).unwrap();
    assert_eq!(past.reach(data).unwrap(), Reach::Ready);
    assert_eq!(past.read(data, 10).unwrap(), DATA);
}

#[test]
fn what_can_be_read_at_once_is_not_called_archived() {
    let Some(server) = stores::s3(&["muster"]) else { return };
    let url = format!("s3:http://{}/muster", server.address());
    let storage = store(&url, &["s3.storage-class=STANDARD_IA"], S3);
    assert_eq!(storage.archiving(), Archiving::Possible);
    let (data, _) = put_both(&*storage);
    assert_eq!(storage.reach(data).unwrap(), Reach::Ready);
    assert_eq!(storage.read(data, 10).unwrap(), DATA);
    let missing = File::Pack(PackId::of(b"none"));
    assert_eq!(storage.reach(missing).unwrap_err().code(), "storage-not-found");
    let folder = tempfile::tempdir().unwrap();
    let folder = store(folder.path().to_str().unwrap(), &[], &[]);
    assert_eq!(folder.archiving(), Archiving::Never);
}

/// A store as S3 is where its intelligent class archived all packs: a pack comes back at the second
/// look after it was asked for, and is an ordinary one then.
fn with_intelligent_archive(server: &stores::Server) -> Front {
    let looks = AtomicU8::new(0);
    Front::start(server.address(), move |seen: &Seen| {
        let state = looks.load(Ordering::SeqCst);
        if !seen.target.contains("/data/") || state == 3 {
            return None;
        }
        match (seen.method.as_str(), state) {
            ("HEAD", 0) => Some(("200 OK\r\nx-amz-archive-status: DEEP_ARCHIVE_ACCESS", "")),
            ("HEAD", _) => {
                looks.fetch_add(1, Ordering::SeqCst);
                let warming = "200 OK\r\nx-amz-archive-status: DEEP_ARCHIVE_ACCESS\r\n\
                               x-amz-restore: ongoing-request=\"true\"";
                Some((warming, ""))
            }
            ("POST", 0) if String::from_utf8_lossy(&seen.body).contains("<Days>") => {
                Some(("400 Bad Request", "<Error><Code>InvalidArgument</Code></Error>"))
            }
            ("POST", _) => {
                looks.store(1, Ordering::SeqCst);
                Some(("202 Accepted", ""))
            }
            ("GET", _) => Some(("403 Forbidden", "<Error><Code>InvalidObjectState</Code></Error>")),
            _ => None,
        }
    })
}

#[test]
fn what_the_intelligent_class_archived_comes_back_for_good() {
    let Some(server) = stores::s3(&["muster"]) else { return };
    let front = with_intelligent_archive(&server);
    let url = format!("s3:http://{}/muster", front.address());
    let storage = store(&url, &["s3.storage-class=INTELLIGENT_TIERING"], S3);
    assert_eq!(storage.archiving(), Archiving::Possible);
    let (data, _) = put_both(&*storage);
    assert_eq!(storage.reach(data).unwrap(), Reach::Archived);
    assert_eq!(storage.read(data, 10).unwrap_err().code(), "store-archived");
    storage.warm_up(data).unwrap();
    assert_eq!(storage.reach(data).unwrap(), Reach::Warming);
    assert_eq!(storage.reach(data).unwrap(), Reach::Warming);
    assert_eq!(storage.reach(data).unwrap(), Reach::Ready);
    assert_eq!(storage.read(data, 10).unwrap(), DATA);
}
