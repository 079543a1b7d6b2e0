//! Checks of repositories that real tools made: nothing sound is called damaged.

use std::{path::Path, sync::Arc};

use muster_repository::{
    check::{CheckOptions, CheckReport, Hint, ReadData, check},
    format::config::Version,
    repository::Repository,
    run::Run,
    storage::LocalStorage,
};
use muster_testkit::{
    Scratch, fixtures,
    odd_tree::{self, Options},
    peers,
};

use crate::common::{Sandbox, restic};

fn check_at(path: &Path, password: &str) -> anyhow::Result<CheckReport> {
    let storage = Arc::new(LocalStorage::new(path));
    let repository = Repository::open(storage, password.as_bytes(), None)?;
    Ok(check(&repository, &CheckOptions { read_data: ReadData::All }, &Run::new())?)
}

#[test]
fn every_fixture_is_sound() -> anyhow::Result<()> {
    let scratch = Scratch::new("fixtures")?;
    for name in fixtures::names()? {
        let path = fixtures::unpack(&name, scratch.path())?;
        let report = check_at(&path, fixtures::PASSWORD)?;
        assert!(report.is_clean(), "{name}: {:#?}", report.damages);
        assert!(report.hints.is_empty(), "{name}: {:#?}", report.hints);
        let counts = report.counts;
        assert!(counts.snapshots > 0 && counts.trees > 0, "{name}: {counts:?}");
        assert!(counts.packs_read == counts.packs && counts.packs > 1, "{name}: {counts:?}");
    }
    Ok(())
}

#[test]
fn what_restic_wrote_and_interrupted_is_sound() -> anyhow::Result<()> {
    let Some(peer) = peers::require("restic") else { return Ok(()) };
    for version in [Version::V1, Version::V2] {
        let sandbox = Sandbox::new("check-restic")?;
        let source = sandbox.folder("source")?;
        odd_tree::build(&source, &Options::for_restic())?;
        let number = u32::from(version).to_string();
        restic(&peer, &sandbox, &["init", "--repository-version", &number])?;
        restic(&peer, &sandbox, &["backup", &source.display().to_string()])?;
        let report = check_at(&sandbox.repository_path(), crate::common::PASSWORD)?;
        assert!(report.is_clean() && report.hints.is_empty(), "{report:#?}");
        // As if the backup had been cut off before its index: the packs are litter.
        for folder in ["index", "snapshots"] {
            for entry in std::fs::read_dir(sandbox.repository_path().join(folder))? {
                std::fs::remove_file(entry?.path())?;
            }
        }
        let report = check_at(&sandbox.repository_path(), crate::common::PASSWORD)?;
        assert!(report.is_clean(), "{report:#?}");
        assert!(matches!(report.hints[..], [Hint::UnindexedPacks { .. }]), "{:#?}", report.hints);
    }
    Ok(())
}
