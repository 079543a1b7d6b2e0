//! What Muster says about a repository is what the real restic says about it.
//!
//! restic records an odd tree twice, with changes in between; every verb that reads is then
//! asked on both sides. Fields that only newer versions of restic write are not compared with
//! an older one.

use std::{collections::BTreeMap, fs, path::Path, sync::Arc};

use anyhow::{Context as _, Result};
use muster_repository::{
    copy::{CopyEvent, copy},
    diff::{DiffOptions, DiffStep, diff},
    dump::{ArchiveFormat, dump, find_target},
    environment::Environment,
    find::{FindEntries, FindObjects, FindOptions, FindStep, FoundNode, ObjectQuery},
    format::{go_json, key_file::Cost, pack::BlobKind, snapshot::Snapshot},
    id::SnapshotId,
    keys::{add_key, change_password, list_keys, remove_key},
    ls::{Ls, LsNode, LsOptions, LsStep},
    packer::PackOptions,
    repository::{IndexedRepository, ReadError, Repository},
    run::Run,
    select::{SnapshotFilter, find_latest, resolve, select},
    stats::{StatsCounter, StatsMode},
    storage::LocalStorage,
    tree_walk::components,
};
use muster_testkit::{Scratch, odd_tree, peers, walker};
use serde_json::Value;
use zeroize::Zeroizing;

const PASSWORD: &str = "fixture";

/// A repository that restic made, and restic.
struct Subject {
    scratch: Scratch,
    restic: peers::Peer,
    repository: IndexedRepository,
    snapshots: Vec<(SnapshotId, Snapshot)>,
}

fn open(path: &Path, password: &str) -> Result<IndexedRepository> {
    let storage = Arc::new(LocalStorage::new(path));
    Ok(Repository::open(storage, password.as_bytes(), None)?.load_index(&Run::new())?)
}

fn subject() -> Result<Option<Subject>> {
    let Some(restic) = peers::require("restic") else { return Ok(None) };
    let scratch = Scratch::new("reading")?;
    let (source, path) = (scratch.join("source"), scratch.join("repository"));
    let options = odd_tree::Options {
        chunk_edges: false,
        deep_levels: 40,
        ..odd_tree::Options::for_restic()
    };
    odd_tree::build(&source, &options)?;
    let text = "muster ".repeat(300_000);
    fs::create_dir_all(source.join("changing/moved"))?;
    fs::write(source.join("changing/large"), &text)?;
    fs::write(source.join("changing/moved/file"), "moved")?;
    let restic =
        restic.env("RESTIC_REPOSITORY", &path).env("RESTIC_PASSWORD", PASSWORD).folder(&source);
    restic.succeed(["init"])?;
    restic.succeed(["backup", ".", "--tag", "first,both"])?;
    fs::write(source.join("changing/large"), text + "more")?;
    fs::rename(source.join("changing/moved"), source.join("changing/to"))?;
    fs::write(source.join("changing/to/new"), "new")?;
    restic.succeed(["backup", ".", "--tag", "both"])?;
    let repository = open(&path, PASSWORD)?;
    let snapshots = repository.snapshots()?;
    Ok(Some(Subject { scratch, restic, repository, snapshots }))
}

impl Subject {
    fn json_lines(&self, arguments: &[&str]) -> Result<Vec<Value>> {
        let output = self.restic.succeed(arguments)?.stdout();
        let lines = output.lines().filter(|line| line.starts_with(['{', '[']));
        Ok(lines.map(serde_json::from_str).collect::<Result<_, _>>()?)
    }
}

fn value(json: &impl serde::Serialize) -> Result<Value> {
    Ok(serde_json::from_slice(&go_json::to_vec(json)?)?)
}

/// Compares objects field by field, without the fields that only one of them has.
fn assert_agree(ours: &[Value], theirs: &[Value]) -> Result<()> {
    for (ours, theirs) in ours.iter().zip(theirs) {
        let theirs = theirs.as_object().context("an object")?;
        for (name, expected) in theirs {
            if let Some(actual) = ours.get(name) {
                assert_eq!(actual, expected, "{name} of {ours}");
            }
        }
        for needed in ["path", "type", "modifier", "mtime", "size"] {
            assert_eq!(ours.get(needed), theirs.get(needed), "{needed}");
        }
    }
    assert_eq!(ours.len(), theirs.len());
    Ok(())
}

fn check_snapshots(subject: &Subject) -> Result<()> {
    let theirs = subject.json_lines(&["snapshots", "--json", "--tag", "first,both"])?;
    let theirs = theirs[0][0]["id"].as_str().context("an id")?;
    let tags = vec![vec!["first".to_owned(), "both".to_owned()]];
    let filter = SnapshotFilter { tags, ..SnapshotFilter::default() };
    let ours = select(&subject.repository, &[], &filter)?.snapshots;
    assert_eq!(ours.iter().map(|(id, _)| id.to_hex()).collect::<Vec<_>>(), [theirs]);
    let everything = SnapshotFilter::default();
    let latest = resolve(&subject.repository, "latest", &everything)?;
    assert_eq!(Some(&latest), find_latest(&subject.snapshots, &everything));
    assert_eq!(resolve(&subject.repository, "latest~1", &everything)?.0.to_hex(), theirs);
    assert_eq!(resolve(&subject.repository, &theirs[..8], &everything)?.0.to_hex(), theirs);
    Ok(())
}

fn check_ls(subject: &Subject) -> Result<()> {
    let (id, snapshot) = &subject.snapshots[1];
    for folders in [&[][..], &["/names", "/changing/to"], &["/deep"]] {
        for recursive in [false, true] {
            let hex = id.to_hex();
            let mut arguments = vec!["ls", "--json", &hex];
            arguments.extend(recursive.then_some("--recursive"));
            arguments.extend(folders);
            let theirs = subject.json_lines(&arguments)?;
            let folders = folders.iter().map(|folder| folder.as_bytes().to_vec()).collect();
            let options = LsOptions { folders, recursive };
            let mut ours = Vec::new();
            for step in Ls::new(&subject.repository, snapshot.tree, &options)? {
                match step {
                    LsStep::Listed(entry) => ours.push(value(&LsNode::from(&entry))?),
                    LsStep::Unreadable { error, .. } => return Err(error.into()),
                    LsStep::OnTheWay(_) | LsStep::Left { .. } => {}
                }
            }
            assert_agree(&ours, &theirs[1..])?;
        }
    }
    Ok(())
}

fn check_find(subject: &Subject) -> Result<()> {
    let theirs = subject.json_lines(&["find", "--json", "file", "large"])?;
    let theirs = theirs[0].as_array().context("an array")?;
    let named =
        |path: &[u8]| components(path).into_iter().any(|name| name == b"file" || name == b"large");
    assert_eq!(theirs.len(), 2);
    for theirs in theirs {
        let id = theirs["snapshot"].as_str().context("an id")?;
        let (_, snapshot) = resolve(&subject.repository, id, &SnapshotFilter::default())?;
        let options =
            FindOptions { matches: &named, may_match_below: &|_| true, oldest: None, newest: None };
        let mut ours = Vec::new();
        for step in FindEntries::new(&subject.repository, snapshot.tree, options)? {
            match step {
                FindStep::Found(entry) => ours.push(value(&FoundNode::from(&entry))?),
                FindStep::Unreadable { error, .. } => return Err(error.into()),
            }
        }
        assert_agree(&ours, theirs["matches"].as_array().context("an array")?)?;
    }
    Ok(())
}

fn check_find_objects(subject: &Subject) -> Result<()> {
    let (id, snapshot) = &subject.snapshots[0];
    let mut walk =
        muster_repository::tree_walk::TreeWalk::new(&subject.repository, snapshot.tree, b"")?;
    let blob = walk.find_map(|step| match step {
        muster_repository::tree_walk::Step::Entry(entry) if entry.path.ends_with(b"/large") => {
            entry.node.content?.first().copied()
        }
        _ => None,
    });
    let blob = blob.context("a blob")?.to_hex();
    let hex = id.to_hex();
    let theirs = subject.json_lines(&["find", "--json", "--snapshot", &hex, "--blob", &blob])?;
    let query = ObjectQuery::of(BlobKind::Data, &[blob.parse()?]);
    let mut ours = Vec::new();
    for step in FindObjects::new(&subject.repository, &subject.snapshots[0], &query)? {
        match step {
            FindStep::Found(found) => ours.push(value(&found)?),
            FindStep::Unreadable { error, .. } => return Err(error.into()),
        }
    }
    assert_eq!(Value::Array(ours), theirs[0]);
    Ok(())
}

fn check_diff(subject: &Subject) -> Result<()> {
    for metadata in [false, true] {
        for (source, target) in [(0, 1), (1, 0), (1, 1)] {
            let (source, target) = (&subject.snapshots[source], &subject.snapshots[target]);
            let (from, to) = (source.0.to_hex(), target.0.to_hex());
            let mut arguments = vec!["diff", "--json", &from, &to];
            arguments.extend(metadata.then_some("--metadata"));
            let theirs = subject.json_lines(&arguments)?;
            let mut ours = Vec::new();
            let (source, target) = (source.1.tree, target.1.tree);
            let options = DiffOptions { metadata };
            let run = Run::new();
            let report = diff(&subject.repository, source, target, options, &run, |step| {
                match step {
                    DiffStep::Change(change) => ours.push(value(&change)?),
                    DiffStep::Unreadable { error, .. } => return Err(error.into()),
                }
                Ok::<_, anyhow::Error>(())
            })?;
            ours.push(value(&report.statistics(&from, &to))?);
            assert_eq!(ours, theirs);
        }
    }
    Ok(())
}

fn check_stats(subject: &Subject) -> Result<()> {
    for mode in StatsMode::ALL {
        let theirs = subject.json_lines(&["stats", "--json", "--mode", mode.as_str()])?;
        let mut counter = StatsCounter::new(&subject.repository, mode);
        for (_, snapshot) in &subject.snapshots {
            counter.add(snapshot, &Run::new())?;
        }
        let report = counter.finish();
        assert!(report.unreadable.is_empty() && report.missing_blobs == 0);
        let ours = value(&report.stats)?;
        for (name, expected) in theirs[0].as_object().context("an object")? {
            let zero = Value::from(0);
            assert_eq!(ours.get(name).unwrap_or(&zero), expected, "{name} of {mode}");
        }
    }
    Ok(())
}

fn check_dump(subject: &Subject) -> Result<()> {
    let (id, snapshot) = &subject.snapshots[1];
    let target = find_target(&subject.repository, snapshot.tree, b"/changing/large")?;
    let mut ours = Vec::new();
    let run = Run::new();
    let report = dump(&subject.repository, target, ArchiveFormat::Tar, &run, &mut ours)?;
    assert_eq!(report.bytes, ours.len() as u64);
    let theirs = subject.restic.succeed(["dump", &id.to_hex(), "/changing/large"])?;
    assert!(ours == theirs.stdout);
    // An archive of the whole, hard links, attributes, ACLs and odd names included, is read by
    // the system's tar without complaint.
    let target = find_target(&subject.repository, snapshot.tree, b"/")?;
    let file = fs::File::create(subject.scratch.join("all.tar"))?;
    let report = dump(&subject.repository, target, ArchiveFormat::Tar, &run, &mut &file)?;
    let listed = std::process::Command::new("tar")
        .arg("-tf")
        .arg(subject.scratch.join("all.tar"))
        .output()?;
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    let lines = listed.stdout.iter().filter(|&&byte| byte == b'\n').count() as u64;
    assert_eq!(lines, report.entries);
    let target = subject.scratch.join("unpacked");
    fs::create_dir(&target)?;
    let mut tar = std::process::Command::new("tar");
    tar.args(["--xattrs", "--xattrs-include=*", "--acls", "-xpf"]);
    let tar = tar.arg(subject.scratch.join("all.tar")).current_dir(&target);
    peers::run(tar)?.expect_success()?;
    let source = walker::walk(&subject.scratch.join("source"))?;
    let tolerance = walker::Tolerance {
        ignore_root: true,
        may_miss: vec![walker::Kind::Socket],
        ..Default::default()
    };
    walker::assert_same(&source, &walker::walk(&target)?, &tolerance);
    Ok(())
}

#[test]
fn snapshots_and_what_they_hold() -> Result<()> {
    let Some(subject) = subject()? else { return Ok(()) };
    check_snapshots(&subject)?;
    check_ls(&subject)?;
    check_find(&subject)?;
    check_find_objects(&subject)?;
    check_diff(&subject)?;
    check_stats(&subject)?;
    check_dump(&subject)
}

#[test]
fn copies_are_sound_to_restic() -> Result<()> {
    let Some(subject) = subject()? else { return Ok(()) };
    let path = subject.scratch.join("target");
    let Some(restic) = peers::require("restic") else { return Ok(()) };
    let restic = restic.env("RESTIC_REPOSITORY", &path).env("RESTIC_PASSWORD", "other");
    restic.succeed(["init"])?;
    let target = open(&path, "other")?;
    let (options, run) = (PackOptions::default(), Run::new());
    let mut saved = BTreeMap::new();
    let report = copy(
        &subject.repository,
        target.clone().into(),
        &subject.snapshots,
        options,
        &run,
        &mut |event| {
            if let CopyEvent::Saved { source, target } = event {
                saved.insert(source, target);
            }
        },
    )?;
    assert_eq!((report.copied.len(), saved.len()), (2, 2));
    restic.succeed(["check", "--read-data"])?;
    // restic's own copy finds that everything is there.
    let restic = restic.env("RESTIC_FROM_PASSWORD", PASSWORD);
    restic.succeed([
        "copy",
        "--from-repo",
        &subject.scratch.join("repository").to_string_lossy(),
    ])?;
    assert_eq!(target.snapshots()?.len(), 2);
    let again = copy(
        &subject.repository,
        open(&path, "other")?.into(),
        &subject.snapshots,
        options,
        &run,
        &mut |_| {},
    )?;
    assert_eq!((again.skipped.len(), again.stats.packs), (2, 0));
    Ok(())
}

#[test]
fn passwords_work_for_both() -> Result<()> {
    let Some(restic) = peers::require("restic") else { return Ok(()) };
    let scratch = Scratch::new("keys")?;
    let path = scratch.join("repository");
    let restic = restic.env("RESTIC_REPOSITORY", &path);
    let open_with = |password: &str| -> Result<bool> {
        let mut command = restic.command();
        let command = command.env("RESTIC_PASSWORD", password).args(["snapshots"]);
        Ok(peers::run(command)?.code == Some(0))
    };
    let mut init = restic.command();
    peers::run(init.env("RESTIC_PASSWORD", PASSWORD).arg("init"))?.expect_success()?;
    let repository = open(&path, PASSWORD)?;
    let author = || Environment::detect().author();
    let password = |text: &str| Zeroizing::new(text.as_bytes().to_vec());
    let second = add_key(&repository, &password("second"), Cost::STANDARD, author())?;
    assert!(open_with(PASSWORD)? && open_with("second")?);
    change_password(&repository, &password("third"), Cost::STANDARD, author())?;
    assert!(!open_with(PASSWORD)? && open_with("second")? && open_with("third")?);
    let repository = open(&path, "third")?;
    remove_key(&repository, &second.short())?;
    assert!(!open_with("second")? && open_with("third")?);
    assert_eq!(list_keys(&repository)?.keys.len(), 1);
    Ok(())
}

/// The error type of reading can be used with anyhow, as callers do.
const _: fn(ReadError) -> anyhow::Error = anyhow::Error::from;
