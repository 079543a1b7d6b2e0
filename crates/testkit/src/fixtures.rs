//! The repositories in `fixtures/` that real tools made.
//!
//! `fixtures/README.md` says which tool made which, and what is in them; `fixtures/make.sh` makes
//! them anew.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::peers;

/// The password of every fixture.
pub const PASSWORD: &str = "fixture";

/// The second password of the fixture `restic-0.18-v2-two-keys`.
pub const SECOND_PASSWORD: &str = "second fixture";

/// Gives the path of the folder `fixtures/`.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures")
}

/// Names all fixtures, in byte order.
///
/// # Errors
///
/// The folder cannot be read.
pub fn names() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder()).context("list fixtures/")? {
        let file = entry.context("list fixtures/")?.file_name();
        if let Some(name) = file.to_str().and_then(|name| name.strip_suffix(".tar.gz")) {
            names.push(name.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// Unpacks the fixture `name` into the folder `target/name` and gives that path.
///
/// # Errors
///
/// There is no such fixture, `tar` is missing or `target` cannot be written.
pub fn unpack(name: &str, target: &Path) -> Result<PathBuf> {
    let archive = folder().join(format!("{name}.tar.gz"));
    if !archive.is_file() {
        bail!("there is no fixture {name}: run fixtures/make.sh");
    }
    std::fs::create_dir_all(target).with_context(|| format!("make {}", target.display()))?;
    let mut command = Command::new("tar");
    command.arg("--extract").arg("--file").arg(archive).arg("--no-same-owner");
    command.arg("--directory").arg(target);
    peers::run(&mut command)?.expect_success()?;
    Ok(target.join(name))
}

/// Reads what a restore of the fixture's newest snapshot must give.
///
/// A script wrote it from the folder that was backed up. The format is that of
/// [`Listing::lines`](crate::Listing::lines), so that the two can be compared as text; cut columns
/// off both where a file system or a user without root cannot restore them.
///
/// # Errors
///
/// There is no such fixture.
pub fn listing(name: &str) -> Result<String> {
    let path = folder().join(format!("{name}.listing"));
    std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::odd_tree::{self, Options};
    use crate::{Scratch, walker};

    #[test]
    fn every_fixture_has_a_listing_and_is_a_repository() {
        let names = names().unwrap();
        assert!(names.len() >= 20, "{names:?}");
        let scratch = Scratch::new("fixtures").unwrap();
        for name in names {
            assert!(listing(&name).unwrap().lines().count() >= 16, "{name}");
            let repository = unpack(&name, scratch.path()).unwrap();
            assert!(repository.join("config").is_file(), "{name}");
            for folder in ["data", "index", "keys", "snapshots"] {
                let first = std::fs::read_dir(repository.join(folder)).unwrap().next();
                assert!(first.is_some(), "{name}: {folder}");
            }
        }
    }

    #[test]
    fn an_unknown_name_is_an_error() {
        let scratch = Scratch::new("unknown").unwrap();
        assert!(unpack("no-such-fixture", scratch.path()).is_err());
        assert!(listing("no-such-fixture").is_err());
    }

    /// Two independent programs list the same folder in the same way, today as when the fixtures
    /// were made.
    #[test]
    fn the_walker_agrees_with_the_script_that_wrote_the_listings() {
        let Some(python) = peers::require("python3") else { return };
        let python = python.folder(folder());
        let scratch = Scratch::new("source").unwrap();
        let attributes = Options { xattrs: true, ..Options::nothing() };
        let probe = odd_tree::build(&scratch.join("probe"), &attributes).unwrap();
        let mut parts = vec![("plain", "restic-0.14-v1")];
        if probe.left_out.is_empty() {
            parts.push(("odd", "restic-0.18-v2-odd"));
        }
        for (part, name) in parts {
            let source = scratch.join(part);
            let source_text = source.to_str().unwrap();
            python.succeed(["source.py", source_text, part]).unwrap();
            let listed = python.succeed(["list.py", source_text]).unwrap().stdout();
            assert_eq!(listed, listing(name).unwrap());
            assert_eq!(walker::walk(&source).unwrap().lines(), listed);
        }
    }
}
