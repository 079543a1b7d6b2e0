//! Files of a database are cut at their pages: what an update in place adds, and that nobody who
//! reads the repository needs to know.

use std::{fs, io, os::unix::fs::FileExt};

use anyhow::{Result, ensure};
use muster_repository::{
    backup::{BackupOptions, BackupReport, Stream, backup_stream},
    environment::Environment,
    format::config::Version,
    run::Run,
};
use muster_testkit::peers;

use crate::common::{Sandbox, assert_clean, backup, restic, restore_source};

const PAGE: usize = 8192;

/// A file of `PostgreSQL`'s pages: sound headers, noise behind.
fn pages(count: usize, special_bytes: u16) -> Vec<u8> {
    let special = u16::try_from(PAGE).unwrap() - special_bytes;
    let mut content = crate::crash::noise(7, count * PAGE);
    for page in content.chunks_exact_mut(PAGE) {
        for (at, number) in [(12, 24), (14, 100), (16, special), (18, 0x2004)] {
            page[at..at + 2].copy_from_slice(&u16::to_le_bytes(number));
        }
        page[PAGE - 2..].fill(0);
    }
    content
}

fn data_blobs(report: &BackupReport) -> Option<u64> {
    report.snapshot.summary.as_ref().map(|summary| summary.data_blobs)
}

#[test]
fn an_update_in_place_stores_a_block_and_not_a_chunk() -> Result<()> {
    let sandbox = Sandbox::new("pages")?;
    let repository = sandbox.init(Version::V2)?;
    let source = sandbox.folder("source")?;
    // The last page of the index was being written when it was read.
    let table = pages(200, 0);
    let index = [pages(120, 16), vec![5; 1000]].concat();
    fs::write(source.join("table"), &table)?;
    fs::write(source.join("index"), &index)?;
    let first = backup(&repository, BackupOptions::new(vec![source.clone()]))?;
    ensure!(data_blobs(&first) == Some(50 + 2 * 120 + 1), "{:?}", first.snapshot.summary);

    for (name, at) in [("table", 77 * PAGE + 5000), ("index", 33 * PAGE + 100)] {
        let file = fs::OpenOptions::new().write(true).open(source.join(name))?;
        file.write_all_at(b"another row", u64::try_from(at)?)?;
    }
    let second = backup(&repository, BackupOptions::new(vec![source.clone()]))?;
    ensure!(data_blobs(&second) == Some(2), "{:?}", second.snapshot.summary);

    assert_clean(&repository);
    let snapshot = crate::common::newest(&repository)?;
    let restored = restore_source(&repository, &snapshot, &source, &sandbox.join("out"))?;
    for name in ["table", "index"] {
        ensure!(fs::read(restored.join(name))? == fs::read(source.join(name))?, "{name}");
    }
    let Some(peer) = peers::require("restic") else { return Ok(()) };
    restic(&peer, &sandbox, &["check", "--read-data"])?;
    let target = sandbox.folder("restic")?;
    restic(&peer, &sandbox, &["restore", "latest", "--target", target.to_str().unwrap()])?;
    let theirs = target.join(source.strip_prefix("/")?);
    for name in ["table", "index"] {
        ensure!(fs::read(theirs.join(name))? == fs::read(source.join(name))?, "{name}");
    }
    Ok(())
}

#[test]
fn a_stream_is_cut_as_the_file_is() -> Result<()> {
    let sandbox = Sandbox::new("pages-stream")?;
    let repository = sandbox.init(Version::V2)?;
    let source = sandbox.folder("source")?;
    // The second is one chunk at most, and one blob.
    let contents = [pages(130, 0), pages(63, 0), pages(64, 16)];
    for (number, content) in contents.iter().enumerate() {
        fs::write(source.join(number.to_string()), content)?;
    }
    let files = backup(&repository, BackupOptions::new(vec![source.clone()]))?;
    ensure!(data_blobs(&files) == Some(33 + 1 + 128), "{:?}", files.snapshot.summary);
    for content in contents {
        let stream = Stream {
            path: "/dump".into(),
            content: Box::new(io::Cursor::new(content)),
            finish: Box::new(|| Ok(())),
        };
        let (environment, options) = (Environment::detect(), BackupOptions::new(Vec::new()));
        let report = backup_stream(&repository, options, stream, &environment, &Run::new())?;
        ensure!(data_blobs(&report) == Some(0), "{:?}", report.snapshot.summary);
    }
    Ok(())
}
