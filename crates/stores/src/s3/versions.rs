//! The versions that a page of a bucket's listing tells.
//!
//! Only a repository's files are noted, and a page is gone through once, whatever stands in it.

use std::collections::HashMap;

use muster_repository::{
    format::time::Timestamp,
    storage::{File, FileKind},
};

use super::xml::{element, unescaped};

/// S3 takes no longer ones as names of versions.
const ID_BYTES_MAX: usize = 1024;

/// By file: the version that was current at the moment.
pub(crate) type Versions = HashMap<File, Version>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Version {
    pub(crate) id: String,
    pub(crate) since: Timestamp,
    pub(crate) bytes: u64,
    pub(crate) is_deletion: bool,
}

/// Takes in what a page of versions tells of the files below `prefix`. A key's versions come
/// newest first, so that of two with the same time the first one counts.
pub(crate) fn take_page(page: &str, prefix: &str, moment: Timestamp, found: &mut Versions) {
    let mut rest = page;
    while let Some(at) = rest.find('<') {
        rest = &rest[at..];
        let (end, is_deletion) = if rest.starts_with("<Version>") {
            ("</Version>", false)
        } else if rest.starts_with("<DeleteMarker>") {
            ("</DeleteMarker>", true)
        } else {
            rest = &rest[1..];
            continue;
        };
        let Some((entry, after)) = rest.split_once(end) else { return };
        rest = after;
        let Some((file, version)) = version(entry, prefix, is_deletion) else { continue };
        let is_newer = found.get(&file).is_none_or(|known| version.since > known.since);
        if version.since <= moment && is_newer {
            found.insert(file, version);
        }
    }
}

fn version(entry: &str, prefix: &str, is_deletion: bool) -> Option<(File, Version)> {
    let text = |name| element(entry, name).map(unescaped);
    let file = file_of(&text("Key")?, prefix)?;
    let id = text("VersionId").filter(|id| id.len() <= ID_BYTES_MAX)?;
    let since = Timestamp::parse(&text("LastModified")?).ok()?;
    let bytes = text("Size").and_then(|text| text.parse().ok()).unwrap_or(0);
    Some((file, Version { id, since, bytes, is_deletion }))
}

/// The repository's file of this key.
fn file_of(key: &str, prefix: &str) -> Option<File> {
    let path = match prefix {
        "" => key,
        prefix => key.strip_prefix(prefix)?.strip_prefix('/')?,
    };
    let name = path.rsplit('/').next()?;
    if path == "config" {
        return Some(File::Config);
    }
    let kinds = FileKind::ALL.into_iter().filter(|kind| *kind != FileKind::Config);
    kinds.filter_map(|kind| kind.file(name)).find(|file| file.to_string() == path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(kind: &str, key: &str, id: &str, second: u32) -> String {
        format!(
            "<{kind}><Key>{key}</Key><VersionId>{id}</VersionId>\
             <LastModified>2026-01-01T00:00:{second:02}.000Z</LastModified><Size>7</Size></{kind}>"
        )
    }

    fn at(second: u32) -> Timestamp {
        Timestamp::parse(&format!("2026-01-01T00:00:{second:02}Z")).unwrap()
    }

    fn check(second: u32, expected: Option<&str>) {
        let page = [
            entry("DeleteMarker", "p/config", "marker", 40),
            entry("Version", "p/config", "newest", 30),
            entry("Version", "p/config", "twin", 30),
            entry("Version", "p/config", "oldest", 10),
        ];
        let mut found = Versions::new();
        take_page(&page.concat(), "p", at(second), &mut found);
        let id = found.get(&File::Config).filter(|it| !it.is_deletion).map(|it| it.id.as_str());
        assert_eq!(id, expected, "at {second}");
    }

    #[test]
    fn the_newest_version_at_or_before_the_moment_counts() {
        check(9, None);
        check(10, Some("oldest"));
        check(29, Some("oldest"));
        check(30, Some("newest"));
        check(40, None);
    }

    #[test]
    fn only_files_of_the_repository_are_noted() {
        let id = "ab".repeat(32);
        let name = |key: &str| file_of(key, "").map(|file| file.to_string());
        for key in [format!("data/ab/{id}"), format!("keys/{id}"), "config".to_owned()] {
            assert_eq!(name(&key), Some(key));
        }
        for key in [format!("data/cd/{id}"), format!("x/keys/{id}"), id, "a/config".to_owned()] {
            assert_eq!(name(&key), None, "{key}");
        }
        assert_eq!(file_of("pq/config", "p"), None);
    }

    /// Each of these would take hours if every entry was looked for in all of the rest.
    #[test]
    fn a_page_is_gone_through_once() {
        for entry in ["<Version></Version>", "<Version>", "<DeleteMarker></DeleteMarker>", "<<<<"] {
            let mut found = Versions::new();
            take_page(&entry.repeat((8 << 20) / entry.len()), "", at(1), &mut found);
            assert!(found.is_empty());
        }
    }
}
