//! Content from elsewhere: a copy in a source's place, and the mode of a stream's file.

use std::{
    fs,
    io::Cursor,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
};

use anyhow::Result;
use muster_repository::{
    backup::{BackupOptions, StandIn, Stream, backup_stream},
    environment::Environment,
    format::{config::Version, time::Timestamp},
    restore::{RestoreOptions, restore},
    run::Run,
};

use crate::common::{Sandbox, backup};

#[test]
fn a_stand_in_gives_the_content_and_nothing_else() -> Result<()> {
    let sandbox = Sandbox::new("stand-in")?;
    let repository = sandbox.init(Version::V2)?;
    let source = sandbox.join("shop.db");
    fs::write(&source, "as it lies there")?;
    fs::set_permissions(&source, fs::Permissions::from_mode(0o640))?;
    let copy = sandbox.join("copy");
    // The second is of the same length as the first, and of the same time as far as the source
    // shows: it is read all the same. The third is larger than a chunk.
    let contents = [b"first copy".to_vec(), b"other copy".to_vec(), vec![7; 2 << 20]];
    for (n, content) in contents.iter().enumerate() {
        fs::write(&copy, content)?;
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o600))?;
        let mtime = Timestamp::new(1_700_000_000, 5, 0);
        let stand_in = StandIn { source: source.clone(), copy: copy.clone(), mtime: Some(mtime) };
        let options =
            BackupOptions { stand_in: Some(stand_in), ..BackupOptions::new(vec![source.clone()]) };
        let report = backup(&repository, options)?;
        assert!(report.problems.is_empty());
        let target = sandbox.join(&format!("target-{n}"));
        let run = Run::new();
        let indexed = repository.load_index(&run)?;
        let options = RestoreOptions::new(&target);
        assert!(restore(&indexed, report.snapshot.tree, &options, &run)?.is_complete());
        let restored = target.join(source.strip_prefix("/")?);
        assert_eq!(&fs::read(&restored)?, content);
        let found = fs::metadata(&restored)?;
        assert_eq!(found.mode() & 0o777, 0o640);
        assert_eq!((found.mtime(), found.mtime_nsec()), (1_700_000_000, 5));
    }
    Ok(())
}

#[test]
fn a_stand_in_that_is_gone_is_a_problem_of_the_source() -> Result<()> {
    let sandbox = Sandbox::new("stand-in-gone")?;
    let repository = sandbox.init(Version::V2)?;
    let source = sandbox.join("shop.db");
    fs::write(&source, "as it lies there")?;
    let stand_in = StandIn { source: source.clone(), copy: sandbox.join("gone"), mtime: None };
    let options =
        BackupOptions { stand_in: Some(stand_in), ..BackupOptions::new(vec![source.clone()]) };
    let report = backup(&repository, options)?;
    assert_eq!(Path::new(&String::from_utf8(report.problems[0].path.clone())?), source);
    Ok(())
}

#[test]
fn the_mode_of_a_streams_file_can_be_chosen() -> Result<()> {
    let sandbox = Sandbox::new("stream-mode")?;
    let repository = sandbox.init(Version::V2)?;
    let options = BackupOptions { stream_mode: 0o600, ..BackupOptions::new(Vec::new()) };
    let stream = Stream {
        path: "/dump".into(),
        content: Box::new(Cursor::new("content")),
        finish: Box::new(|| Ok(())),
    };
    let (environment, run) = (Environment::detect(), Run::new());
    let report = backup_stream(&repository, options, stream, &environment, &run)?;
    let indexed = repository.load_index(&run)?;
    let target = sandbox.join("target");
    let options = RestoreOptions::new(&target);
    assert!(restore(&indexed, report.snapshot.tree, &options, &run)?.is_complete());
    assert_eq!(fs::metadata(target.join("dump"))?.mode() & 0o777, 0o600);
    Ok(())
}
