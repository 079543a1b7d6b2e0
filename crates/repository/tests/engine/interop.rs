//! Muster and restic on one repository, in both directions.

use crate::common::{Sandbox, backup, restic, source_tree};
use muster_model::BackupKind;
use muster_repository::{
    backup::BackupOptions, compression::CompressionLevel, format::config::Version,
};
use muster_testkit::{
    odd_tree::{self, Options},
    peers,
    walker::{Kind, Tolerance, assert_same, walk},
};

#[test]
fn restic_checks_and_restores_what_muster_wrote() -> anyhow::Result<()> {
    let Some(peer) = peers::require("restic") else { return Ok(()) };
    let sandbox = Sandbox::new("restic-reads")?;
    let source = sandbox.folder("source")?;
    odd_tree::build(&source, &Options::for_restic())?;
    let repository = sandbox.init(Version::V2)?;
    let report = backup(&repository, BackupOptions::new(vec![source.clone()]))?;
    assert!(report.problems.is_empty(), "{:?}", report.problems);

    restic(&peer, &sandbox, &["check", "--read-data"])?;
    let target = sandbox.join("restored");
    restic(&peer, &sandbox, &["restore", "latest", "--target", &target.display().to_string()])?;
    let restored = target.join(source.strip_prefix("/")?);
    let tolerance = Tolerance { may_miss: vec![Kind::Socket], ..Tolerance::default() };
    assert_same(&walk(&source)?, &walk(&restored)?, &tolerance);
    Ok(())
}

#[test]
fn nothing_is_stored_twice_beside_restic() -> anyhow::Result<()> {
    let Some(peer) = peers::require("restic") else { return Ok(()) };
    for compression in [CompressionLevel::Off, CompressionLevel::Auto] {
        let sandbox = Sandbox::new("restic-first")?;
        let source = sandbox.folder("source")?;
        odd_tree::build(&source, &Options { deep_levels: 20, ..Options::for_restic() })?;
        // restic leaves sockets out of its trees; we record them.
        std::fs::remove_file(source.join("special/socket"))?;
        restic(&peer, &sandbox, &["init", "--repository-version", "2"])?;
        restic(&peer, &sandbox, &["backup", &source.display().to_string()])?;
        let repository = sandbox.open()?;
        let mut options = BackupOptions::new(vec![source.clone()]);
        options.kind = BackupKind::Full;
        options.packs.compression = compression;
        let report = backup(&repository, options)?;
        let summary = report.snapshot.summary.as_ref().expect("a summary");
        assert_eq!(summary.data_blobs, 0, "{summary:?}");
        let theirs = repository.snapshots()?.remove(0).1.tree;
        let tree = |root| source_tree(&repository, root, &source);
        assert_eq!(tree(theirs), tree(report.snapshot.tree), "the same to the last byte");
        restic(&peer, &sandbox, &["check", "--read-data"])?;
    }
    Ok(())
}
