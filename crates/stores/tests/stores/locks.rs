//! Files that nobody can remove, and buckets as they were.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use muster_model::{Fault as _, Location};
use muster_repository::{
    format::{pack::BlobKind, time::Timestamp},
    id::PackId,
    storage::{
        File, FileKind, Holding, Mode,
        conformance::{pack, spooled},
    },
};
use muster_stores::{Settings, open};
use muster_testkit::{stores, wait_for};

use crate::{fresh, settings, store};

const S3: &[(&str, &str)] =
    &[("AWS_ACCESS_KEY_ID", "muster"), ("AWS_SECRET_ACCESS_KEY", "muster-secret")];

fn now() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

fn in_days(days: i64) -> Timestamp {
    Timestamp::new(now() + days * 86_400, 0, 0)
}

#[test]
fn a_file_is_held_and_never_for_less() {
    let Some(server) = stores::s3_with_locks(&["muster"]) else { return };
    let url = format!("s3:http://{}/muster/a b/{}", server.address(), fresh());
    let storage = store(&url, &[], S3);
    assert_eq!(storage.holding().unwrap(), Holding::OnRequest);
    storage.put(pack(1), b"0123").unwrap();
    let free = storage.retention(pack(1)).unwrap();
    assert_eq!((free.until, free.mode, free.bytes), (None, None, 4));
    storage.retain(pack(1), in_days(3)).unwrap();
    let held = storage.retention(pack(1)).unwrap();
    assert!(held.covers(in_days(2)) && !held.covers(in_days(4)), "{held:?}");
    assert_eq!(held.mode, Some(Mode::Compliance));
    storage.retain(pack(1), in_days(1)).unwrap();
    assert_eq!(storage.retention(pack(1)).unwrap(), held, "a hold is not shortened");
    let governed = store(&url, &["s3.object-lock-mode=governance"], S3);
    governed.retain(pack(1), in_days(9)).unwrap();
    let held = storage.retention(pack(1)).unwrap();
    assert!(held.covers(in_days(8)) && held.mode == Some(Mode::Compliance), "nor weakened");
    assert_eq!(storage.retention(pack(2)).unwrap_err().code(), "storage-not-found");
}

#[test]
fn a_new_file_is_held_from_its_first_moment_on() {
    let Some(server) = stores::s3_with_locks(&["muster"]) else { return };
    let url = format!("s3:http://{}/muster/{}", server.address(), fresh());
    let options = ["s3.object-lock=30d", "s3.object-lock-mode=governance"];
    let storage = store(&url, &options, S3);
    storage.put(pack(1), b"0123").unwrap();
    let held = storage.retention(pack(1)).unwrap();
    assert!(held.covers(in_days(29)) && held.mode == Some(Mode::Governance), "{held:?}");
    storage.put_spooled(BlobKind::Data, &spooled(b"pack", b"pack")).unwrap();
    let held = storage.retention(File::Pack(PackId::of(b"pack"))).unwrap();
    assert!(held.covers(in_days(29)) && held.mode == Some(Mode::Governance), "{held:?}");
    storage.put_new(File::Config, b"x").unwrap();
    assert!(storage.retention(File::Config).unwrap().is_held(in_days(0)));
    assert_eq!(storage.put_new(File::Config, b"y").unwrap_err().code(), "storage-already-exists");
    // Who works here is no secret to keep.
    let lock = FileKind::Lock.file(&"ab".repeat(32)).unwrap();
    storage.put(lock, b"x").unwrap();
    assert_eq!(storage.retention(lock).unwrap().until, None);
}

#[test]
fn a_wish_to_hold_is_granted_where_the_bucket_can() {
    let Some(server) = stores::s3_with_locks(&["locked"]) else { return };
    let line = "PUT /plain HTTP/1.1";
    assert!(stores::request(server.address(), line, &[], b"").unwrap().starts_with("HTTP/1.1 200"));
    for (bucket, held) in [("locked", true), ("plain", false)] {
        let url = format!("s3:http://{}/{bucket}/{}", server.address(), fresh());
        let hold_new = Some(Duration::from_secs(3 * 86_400));
        let settings = Settings { hold_new, ..settings(&[], S3) };
        let storage = open(&Location::parse(&url).unwrap(), &settings).unwrap();
        storage.put(pack(1), b"0123").unwrap();
        storage.put_new(File::Config, b"x").unwrap();
        for file in [pack(1), File::Config] {
            let retention = storage.retention(file).unwrap();
            assert_eq!(retention.covers(in_days(2)), held, "{retention:?}");
        }
        assert_eq!(storage.read(pack(1), 4).unwrap(), b"0123");
    }
}

#[test]
fn a_store_that_cannot_hold_says_so() {
    let Some(server) = stores::s3(&["muster"]) else { return };
    let url = format!("s3:http://{}/muster", server.address());
    let storage = store(&url, &[], S3);
    assert_eq!(storage.holding().unwrap(), Holding::Never);
    storage.put(pack(1), b"x").unwrap();
    assert_eq!(storage.retain(pack(1), in_days(1)).unwrap_err().code(), "store-cannot-hold");
    let folder = tempfile::tempdir().unwrap();
    let folder = store(folder.path().to_str().unwrap(), &[], &[]);
    assert_eq!(folder.holding().unwrap(), Holding::Never);
    let error = folder.retain(pack(1), in_days(1)).unwrap_err();
    assert_eq!(error.code(), "store-cannot-hold");
    assert!(error.help().unwrap().contains("Object Lock"));
}

#[test]
fn the_past_is_read_and_never_written() {
    let Some(server) = stores::s3_with_locks(&["muster"]) else { return };
    let url = format!("s3:http://{}/muster/a", server.address());
    let storage = store(&url, &[], S3);
    storage.put(pack(1), b"0123456789").unwrap();
    storage.put(pack(2), b"gone").unwrap();
    storage.put(File::Config, b"good").unwrap();
    let other = store(&format!("s3:http://{}/muster/ab", server.address()), &[], S3);
    other.put(pack(3), b"a neighbour").unwrap();
    let moment = Timestamp::new(now(), 0, 0);
    let passed = || (now() > moment.seconds() + 1).then_some(());
    wait_for("the next second", Duration::from_secs(30), passed).unwrap();
    storage.put(File::Config, b"bad").unwrap();
    storage.put(pack(1), b"rubbish").unwrap();
    storage.delete(pack(1)).unwrap();
    storage.delete(pack(2)).unwrap();
    assert_eq!(storage.list(FileKind::Pack).unwrap(), []);
    let moment = Timestamp::new(moment.seconds() + 1, 0, 0);
    let past = store(&url, &[&format!("s3.as-of={moment}")], S3);
    assert_eq!(past.list(FileKind::Pack).unwrap().len(), 2);
    assert_eq!(past.list(FileKind::Config).unwrap().len(), 1);
    assert_eq!(past.read(File::Config, 10).unwrap(), b"good");
    assert_eq!(past.size(pack(2)).unwrap(), 4);
    let mut buffer = [0; 3];
    past.read_range(pack(1), 7, &mut buffer).unwrap();
    assert_eq!(&buffer, b"789");
    assert_eq!(past.read_range(pack(1), 8, &mut buffer).unwrap_err().code(), "storage-too-short");
    assert_eq!(past.read(pack(3), 10).unwrap_err().code(), "storage-not-found");
    for error in [past.put(pack(4), b"x").unwrap_err(), past.delete(pack(1)).unwrap_err()] {
        assert_eq!(error.code(), "store-in-the-past");
    }
    // Who reads leaves a mark, and it stays here.
    let lock = FileKind::Lock.file(&"ab".repeat(32)).unwrap();
    past.put(lock, b"x").unwrap();
    assert_eq!(past.list(FileKind::Lock).unwrap().len(), 1);
    assert_eq!(storage.list(FileKind::Lock).unwrap(), []);
    past.delete(lock).unwrap();
}
