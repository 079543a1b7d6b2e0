//! Choosing snapshots: by id, by `latest`, by host, tags and paths; in groups; as a parent.
//!
//! Words mean what they mean in restic. `latest` is the newest snapshot that the filter lets
//! through, `latest~N` the N-th before it; anything else is an id or the beginning of one, and
//! then the filter has no say. `SNAPSHOT:PATH` names a folder inside a snapshot.
//!
//! # Source
//! restic, `internal/data/snapshot_find.go`, `snapshot_group.go`; rustic for `latest~N`.

use std::{
    collections::{BTreeMap, HashSet},
    fmt,
    str::FromStr,
};

use muster_model::{BackupKind, Class, Fault};
use serde::Serialize;
use thiserror::Error;

use crate::{
    format::{snapshot::Snapshot, time::Timestamp},
    id::{ID_BYTES, Id, SnapshotId},
    repository::{IndexedRepository, ReadError, Repository, together},
    run::Run,
    storage::{Listed, StorageError},
};

/// The word for the newest snapshot.
const LATEST: &str = "latest";

/// How many ids an error names when a prefix fits several.
const IDS_SHOWN_MAX: usize = 5;

/// Which snapshots to consider. An empty list lets everything through.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SnapshotFilter {
    /// The snapshot's host must be one of these.
    pub hosts: Vec<String>,
    /// The snapshot must have all tags of at least one of these lists. A list of one empty tag
    /// means snapshots without tags.
    pub tags: Vec<Vec<String>>,
    /// The snapshot must have all of these absolute paths, and may have more.
    pub paths: Vec<String>,
}

impl SnapshotFilter {
    /// Whether everything is let through.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.hosts.is_empty() && self.tags.is_empty() && self.paths.is_empty()
    }

    /// Whether the snapshot is let through.
    #[must_use]
    pub fn matches(&self, snapshot: &Snapshot) -> bool {
        let host = self.hosts.is_empty() || self.hosts.contains(&snapshot.hostname);
        let tags = self.tags.is_empty() || self.tags.iter().any(|list| has_tags(snapshot, list));
        host && tags && self.paths.iter().all(|path| snapshot.paths.contains(path))
    }
}

fn has_tags(snapshot: &Snapshot, wanted: &[String]) -> bool {
    for tag in wanted {
        if tag.is_empty() && snapshot.tags.is_empty() {
            return true;
        }
        if !snapshot.tags.contains(tag) {
            return false;
        }
    }
    true
}

/// Writes the filter for an error message: `host a; tag x,y; path /srv`.
impl fmt::Display for SnapshotFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tags = self.tags.iter().map(|list| format!("tag {}", list.join(",")));
        let hosts = self.hosts.iter().map(|host| format!("host {host}"));
        let paths = self.paths.iter().map(|path| format!("path {path}"));
        f.write_str(&hosts.chain(tags).chain(paths).collect::<Vec<_>>().join("; "))
    }
}

/// Splits the value of one `--tag`: at commas, without the blanks around a tag.
#[must_use]
pub fn parse_tag_list(text: &str) -> Vec<String> {
    text.split(',').map(|tag| tag.trim().to_owned()).collect()
}

/// Splits `SNAPSHOT:PATH`; without a colon there is no path.
#[must_use]
pub fn split_subfolder(text: &str) -> (&str, Option<&str>) {
    match text.split_once(':') {
        Some((snapshot, path)) => (snapshot, Some(path)),
        None => (text, None),
    }
}

/// The beginning of an id, or all of it: 1 to 64 lower-case hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdPrefix(String);

impl IdPrefix {
    /// Whether the id begins with these digits.
    #[must_use]
    pub fn matches<K>(&self, id: &Id<K>) -> bool {
        // Looking at the first byte spares most ids their hexadecimal form.
        let digits = self.0.as_bytes();
        match u8::from_str_radix(self.0.get(..2).unwrap_or_default(), 16) {
            Ok(first) if first != id.as_bytes()[0] => false,
            _ => id.to_hex().as_bytes().starts_with(digits),
        }
    }

    /// The digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for IdPrefix {
    type Err = SelectError;

    fn from_str(text: &str) -> Result<Self, SelectError> {
        let digits = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        match digits && (1..=2 * ID_BYTES).contains(&text.len()) {
            true => Ok(Self(text.to_owned())),
            false => Err(SelectError::NoId { text: text.to_owned() }),
        }
    }
}

/// The newest snapshot that the filter lets through.
#[must_use]
pub fn find_latest<'s>(
    snapshots: &'s [(SnapshotId, Snapshot)],
    filter: &SnapshotFilter,
) -> Option<&'s (SnapshotId, Snapshot)> {
    let matching = snapshots.iter().filter(|(_, snapshot)| filter.matches(snapshot));
    matching.max_by_key(|(id, snapshot)| (snapshot.time, *id))
}

/// Finds one snapshot by `latest`, `latest~N`, or an id or its beginning. The filter counts for
/// `latest` only.
///
/// # Errors
/// Fails when no snapshot, or more than one, is meant, or the repository cannot be read.
pub fn resolve(
    repository: &Repository,
    text: &str,
    filter: &SnapshotFilter,
) -> Result<(SnapshotId, Snapshot), SelectError> {
    let listed = match SnapshotId::parse(text) {
        Some(_) => Vec::new(),
        None => repository.snapshot_ids()?,
    };
    resolve_among(repository, &listed, text, filter)
}

/// What a repository held when somebody looked, who has only just taken a lock.
#[derive(Debug)]
pub struct Glance {
    snapshots: Vec<SnapshotId>,
    index: Vec<Listed>,
}

impl Glance {
    /// Looks at a repository: for use [while](crate::lock::Lock::acquire_while) a lock is taken.
    ///
    /// # Errors
    /// Fails when the store cannot be listed.
    pub fn at(repository: &Repository) -> Result<Self, StorageError> {
        let (snapshots, index) =
            together(|| repository.snapshot_ids(), || repository.index_files());
        Ok(Self { snapshots: snapshots?, index: index? })
    }
}

/// As [`resolve`] among the snapshots that were seen, and loads the index meanwhile: what is in
/// the listing is in the index.
///
/// # Errors
/// As [`resolve`], and when the index cannot be read.
pub fn resolve_and_load(
    repository: &Repository,
    seen: &Glance,
    (text, filter): (&str, &SnapshotFilter),
    run: &Run,
) -> Result<((SnapshotId, Snapshot), IndexedRepository), SelectError> {
    let (found, loaded) = together(
        || resolve_among(repository, &seen.snapshots, text, filter),
        || repository.load_index_expecting(&seen.index, run),
    );
    Ok((found?, loaded?))
}

fn resolve_among(
    repository: &Repository,
    listed: &[SnapshotId],
    text: &str,
    filter: &SnapshotFilter,
) -> Result<(SnapshotId, Snapshot), SelectError> {
    if let Some(age) = parse_latest(text) {
        return nth_latest(repository.snapshots_among(listed)?, age, filter);
    }
    let id = match SnapshotId::parse(text) {
        Some(id) => id,
        None => find_by_prefix(listed, &text.parse()?)?,
    };
    match repository.snapshot(id) {
        Ok(snapshot) => Ok((id, snapshot)),
        Err(error) if error.class() == Class::NotFound => {
            Err(SelectError::NotFound { prefix: text.to_owned() })
        }
        Err(error) => Err(error.into()),
    }
}

/// `latest` is 0, `latest~N` is N, anything else nothing.
fn parse_latest(text: &str) -> Option<usize> {
    match text.strip_prefix(LATEST)? {
        "" => Some(0),
        age => age.strip_prefix('~')?.parse().ok(),
    }
}

fn nth_latest(
    mut snapshots: Vec<(SnapshotId, Snapshot)>,
    age: usize,
    filter: &SnapshotFilter,
) -> Result<(SnapshotId, Snapshot), SelectError> {
    let total = snapshots.len();
    snapshots.retain(|(_, snapshot)| filter.matches(snapshot));
    let matching = snapshots.len();
    match matching.checked_sub(age + 1) {
        Some(position) => Ok(snapshots.swap_remove(position)),
        None if matching > 0 => Err(SelectError::TooFewForAge { age, matching }),
        None => Err(SelectError::NoneMatches { filter: filter.clone(), total }),
    }
}

/// The one id that begins with `prefix`.
pub(crate) fn find_by_prefix<K>(ids: &[Id<K>], prefix: &IdPrefix) -> Result<Id<K>, SelectError> {
    let mut matching: Vec<Id<K>> = ids.iter().copied().filter(|id| prefix.matches(id)).collect();
    matching.sort();
    let prefix = prefix.as_str().to_owned();
    match matching[..] {
        [] => Err(SelectError::NotFound { prefix }),
        [id] => Ok(id),
        _ => {
            let shown = matching.iter().take(IDS_SHOWN_MAX).map(Id::to_hex).collect();
            Err(SelectError::Ambiguous { prefix, matching: matching.len(), shown })
        }
    }
}

/// What [`select`] found.
#[derive(Debug, Clone)]
#[must_use = "the snapshots are what was asked for"]
pub struct Selection {
    /// The snapshots: in the order given, or oldest first when chosen by filter.
    pub snapshots: Vec<(SnapshotId, Snapshot)>,
    /// Whether a filter was given that had no say, because ids were given too. People should
    /// be told.
    pub filter_unused: bool,
}

/// Finds several snapshots: those named by `texts` (see [`resolve`]), each once; or, when there
/// are none, all that the filter lets through.
///
/// # Errors
/// Fails at the first text that names no snapshot or a folder inside one, and when the
/// repository cannot be read.
pub fn select(
    repository: &Repository,
    texts: &[String],
    filter: &SnapshotFilter,
) -> Result<Selection, SelectError> {
    if texts.is_empty() {
        let mut snapshots = repository.snapshots()?;
        snapshots.retain(|(_, snapshot)| filter.matches(snapshot));
        return Ok(Selection { snapshots, filter_unused: false });
    }
    let mut snapshots = Vec::new();
    let mut seen = HashSet::new();
    let mut filter_unused = !filter.is_empty();
    for text in texts {
        if let (_, Some(_)) = split_subfolder(text) {
            return Err(SelectError::SubfolderNotAllowed { text: text.clone() });
        }
        filter_unused &= parse_latest(text).is_none();
        let found = resolve(repository, text, filter)?;
        if seen.insert(found.0) {
            snapshots.push(found);
        }
    }
    Ok(Selection { snapshots, filter_unused })
}

/// By what snapshots are put into groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupBy {
    /// One group for each host.
    pub hosts: bool,
    /// One group for each set of paths.
    pub paths: bool,
    /// One group for each set of tags.
    pub tags: bool,
}

/// By host and paths, as restic does for `forget` and for parents.
impl Default for GroupBy {
    fn default() -> Self {
        Self { hosts: true, paths: true, tags: false }
    }
}

impl FromStr for GroupBy {
    type Err = SelectError;

    /// Reads `host,paths,tags` in any order, each singular or plural; empty means one group.
    fn from_str(text: &str) -> Result<Self, SelectError> {
        let mut by = Self { hosts: false, paths: false, tags: false };
        for word in text.split(',') {
            match word {
                "host" | "hosts" => by.hosts = true,
                "path" | "paths" => by.paths = true,
                "tag" | "tags" => by.tags = true,
                "" => {}
                _ => return Err(SelectError::NoGrouping { word: word.to_owned() }),
            }
        }
        Ok(by)
    }
}

/// What the snapshots of a group share; fields by which nothing was grouped are empty.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct GroupKey {
    /// The host.
    pub hostname: String,
    /// The paths, sorted.
    #[serde(serialize_with = "null_when_empty")]
    pub paths: Vec<String>,
    /// The tags, sorted.
    #[serde(serialize_with = "null_when_empty")]
    pub tags: Vec<String>,
}

impl GroupKey {
    /// The group that a snapshot belongs to.
    #[must_use]
    pub fn of(snapshot: &Snapshot, by: GroupBy) -> Self {
        let sorted = |wanted: bool, list: &[String]| {
            let mut list = if wanted { list.to_vec() } else { Vec::new() };
            list.sort();
            list
        };
        Self {
            hostname: if by.hosts { snapshot.hostname.clone() } else { String::new() },
            paths: sorted(by.paths, &snapshot.paths),
            tags: sorted(by.tags, &snapshot.tags),
        }
    }
}

/// As Go writes a slice that was never filled.
fn null_when_empty<S: serde::Serializer>(list: &Vec<String>, to: S) -> Result<S::Ok, S::Error> {
    match list.is_empty() {
        true => to.serialize_none(),
        false => list.serialize(to),
    }
}

/// Puts snapshots into groups, sorted by key; within a group the order stays.
#[must_use]
pub fn group(
    snapshots: Vec<(SnapshotId, Snapshot)>,
    by: GroupBy,
) -> Vec<(GroupKey, Vec<(SnapshotId, Snapshot)>)> {
    let mut groups: BTreeMap<GroupKey, Vec<_>> = BTreeMap::new();
    for entry in snapshots {
        groups.entry(GroupKey::of(&entry.1, by)).or_default().push(entry);
    }
    groups.into_iter().collect()
}

/// A backup that looks for earlier ones of the same source.
#[derive(Debug, Clone, Copy)]
pub struct SourceQuery<'a> {
    /// The backup's host.
    pub hostname: &'a str,
    /// The backup's absolute paths.
    pub paths: &'a [String],
    /// The backup's time: the others are not newer.
    pub time: Timestamp,
}

impl SourceQuery<'_> {
    /// Whether a snapshot is of the same host and exactly the same set of paths.
    ///
    /// restic is content with a snapshot that has more paths. The exact set is asked for here
    /// because two plans that overlap would otherwise take each other's snapshots for parents, and
    /// a differential backup would refer to a full one of something else.
    #[must_use]
    pub fn matches(&self, snapshot: &Snapshot) -> bool {
        let paths = |paths: &[String]| paths.iter().cloned().collect::<HashSet<_>>();
        snapshot.hostname == self.hostname
            && snapshot.time <= self.time
            && paths(&snapshot.paths) == paths(self.paths)
    }
}

/// The newest of a source's earlier snapshots; of the full ones, which makes a differential backup.
#[must_use]
pub fn find_parent(
    earlier: &[(SnapshotId, Snapshot)],
    only_full: bool,
) -> Option<&(SnapshotId, Snapshot)> {
    let is_full =
        |snapshot: &Snapshot| BackupKind::from_tags(&snapshot.tags) == Some(BackupKind::Full);
    let candidates = earlier.iter().filter(|(_, snapshot)| !only_full || is_full(snapshot));
    candidates.max_by_key(|(id, snapshot)| (snapshot.time, *id))
}

/// No snapshot could be chosen.
#[derive(Debug, Error)]
pub enum SelectError {
    /// The text is neither `latest` nor the beginning of an id.
    #[error("find '{text}': it is no id")]
    NoId {
        /// What was given.
        text: String,
    },
    /// Nothing has an id that begins so.
    #[error("find an id that begins with {prefix}: there is none")]
    NotFound {
        /// The digits that were given.
        prefix: String,
    },
    /// Several ids begin so.
    #[error("find the one id that begins with {prefix}: {matching} do ({})", shown.join(", "))]
    Ambiguous {
        /// The digits that were given.
        prefix: String,
        /// How many ids begin with them.
        matching: usize,
        /// Some of these ids.
        shown: Vec<String>,
    },
    /// The filter lets nothing through.
    #[error("find the latest snapshot{}: {}", describe(filter), none_of(*total))]
    NoneMatches {
        /// The filter.
        filter: SnapshotFilter,
        /// How many snapshots there are in all.
        total: usize,
    },
    /// There are snapshots, but not so many.
    #[error("find the snapshot {age} before the latest: there are only {matching}")]
    TooFewForAge {
        /// The number after `~`.
        age: usize,
        /// How many snapshots the filter lets through.
        matching: usize,
    },
    /// A folder was given where only whole snapshots make sense.
    #[error("use '{text}': only whole snapshots can be given here, no folder in one")]
    SubfolderNotAllowed {
        /// What was given.
        text: String,
    },
    /// The word is no grouping.
    #[error("group by '{word}'")]
    NoGrouping {
        /// What was given.
        word: String,
    },
    /// A snapshot cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The snapshots cannot be listed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

fn describe(filter: &SnapshotFilter) -> String {
    if filter.is_empty() { String::new() } else { format!(" of {filter}") }
}

fn none_of(total: usize) -> String {
    match total {
        0 => "the repository holds no snapshot".to_owned(),
        1 => "the only snapshot does not match".to_owned(),
        _ => format!("none of the {total} snapshots match"),
    }
}

impl Fault for SelectError {
    fn class(&self) -> Class {
        match self {
            Self::NoId { .. } | Self::SubfolderNotAllowed { .. } | Self::NoGrouping { .. } => {
                Class::Input
            }
            Self::Ambiguous { .. } => Class::Input,
            Self::NotFound { .. } | Self::NoneMatches { .. } | Self::TooFewForAge { .. } => {
                Class::NotFound
            }
            Self::Read(error) => error.class(),
            Self::Storage(error) => error.class(),
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::NoId { .. } => "not-an-id",
            Self::NotFound { .. } => "id-not-found",
            Self::Ambiguous { .. } => "id-ambiguous",
            Self::NoneMatches { .. } | Self::TooFewForAge { .. } => "no-snapshot-matches",
            Self::SubfolderNotAllowed { .. } => "subfolder-not-allowed",
            Self::NoGrouping { .. } => "unknown-grouping",
            Self::Read(error) => error.code(),
            Self::Storage(error) => error.code(),
        }
    }

    fn help(&self) -> Option<String> {
        let help = match self {
            Self::NoId { .. } => {
                "write 'latest', 'latest~1', or the first digits of an id (0-9, a-f)"
            }
            Self::NotFound { .. } | Self::TooFewForAge { .. } => {
                "list what there is with 'muster repo snapshots'"
            }
            Self::Ambiguous { .. } => "write more digits of the id",
            Self::NoneMatches { total: 0, .. } => {
                "make one with 'muster repo backup', or check that this is the right repository"
            }
            Self::NoneMatches { .. } => {
                "check --host, --tag and --path against 'muster repo snapshots'"
            }
            Self::SubfolderNotAllowed { .. } => "leave out the colon and what follows it",
            Self::NoGrouping { .. } => "write host, paths and tags, separated by commas",
            Self::Read(error) => return error.help(),
            Self::Storage(error) => return error.help(),
        };
        Some(help.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::BlobId;

    fn snapshot(second: i64, host: &str, paths: &[&str], tags: &[&str]) -> (SnapshotId, Snapshot) {
        let owned = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect();
        let snapshot = Snapshot {
            time: Timestamp::new(second, 0, 0),
            parent: None,
            tree: BlobId::of(b"tree"),
            paths: owned(paths),
            hostname: host.to_owned(),
            username: String::new(),
            uid: 0,
            gid: 0,
            excludes: vec![],
            tags: owned(tags),
            original: None,
            program_version: String::new(),
            summary: None,
        };
        (SnapshotId::of(&second.to_le_bytes()), snapshot)
    }

    fn filter(hosts: &[&str], tags: &[&str], paths: &[&str]) -> SnapshotFilter {
        let owned = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect();
        SnapshotFilter {
            hosts: owned(hosts),
            tags: tags.iter().map(|list| parse_tag_list(list)).collect(),
            paths: owned(paths),
        }
    }

    #[test]
    fn filters_mean_what_they_mean_in_restic() {
        let (_, subject) = snapshot(1, "a", &["/srv", "/etc"], &["x", "y"]);
        let check = |hosts: &[&str], tags: &[&str], paths: &[&str], expected: bool| {
            let filter = filter(hosts, tags, paths);
            assert_eq!(filter.matches(&subject), expected, "{filter}");
        };
        check(&[], &[], &[], true);
        check(&["b", "a"], &[], &[], true);
        check(&["b"], &[], &[], false);
        check(&[], &["x, y"], &[], true);
        check(&[], &["x,z"], &[], false);
        check(&[], &["x,z", "y"], &[], true);
        check(&[], &[""], &[], false);
        check(&[], &[], &["/srv"], true);
        check(&[], &[], &["/srv", "/home"], false);
        let (_, bare) = snapshot(1, "a", &["/srv"], &[]);
        assert!(filter(&[], &[""], &[]).matches(&bare), "no tags at all");
    }

    #[test]
    fn latest_counts_back_among_what_matches() {
        let all = vec![
            snapshot(1, "a", &["/"], &[]),
            snapshot(2, "b", &["/"], &[]),
            snapshot(3, "a", &["/"], &[]),
        ];
        let time = |age, filter: &SnapshotFilter| {
            nth_latest(all.clone(), age, filter).map(|(_, found)| found.time.seconds())
        };
        let host = filter(&["a"], &[], &[]);
        assert_eq!(time(0, &host).unwrap(), 3);
        assert_eq!(time(1, &host).unwrap(), 1);
        assert_eq!(time(2, &host).unwrap_err().code(), "no-snapshot-matches");
        assert_eq!(time(0, &filter(&["c"], &[], &[])).unwrap_err().class(), Class::NotFound);
        assert_eq!(find_latest(&all, &host).unwrap().1.time.seconds(), 3);
        let check = |text: &str, expected| assert_eq!(parse_latest(text), expected, "{text}");
        check("latest", Some(0));
        check("latest~12", Some(12));
        check("latest~", None);
        check("latest~-1", None);
        check("lates", None);
    }

    #[test]
    fn prefixes_are_unique_or_refused() {
        let ids: Vec<SnapshotId> =
            (0..64).map(|n: u8| SnapshotId::from_bytes([n / 4; 32])).chain([]).collect();
        let mut ids: Vec<_> = ids.into_iter().step_by(4).collect();
        ids.push(SnapshotId::from_bytes([0xab; 32]));
        let find = |prefix: &str| find_by_prefix(&ids, &prefix.parse().unwrap());
        assert_eq!(find("ab").unwrap(), SnapshotId::from_bytes([0xab; 32]));
        assert_eq!(find("a").unwrap(), SnapshotId::from_bytes([0xab; 32]));
        assert_eq!(find(&"ab".repeat(32)).unwrap(), SnapshotId::from_bytes([0xab; 32]));
        assert_eq!(find("ac").unwrap_err().code(), "id-not-found");
        let error = find("0").unwrap_err();
        assert!(
            matches!(&error, SelectError::Ambiguous { matching: 16, shown, .. } if shown.len() == 5)
        );
        for bad in ["", "AB", "xyz", "latest~", &"a".repeat(65)] {
            assert_eq!(bad.parse::<IdPrefix>().unwrap_err().class(), Class::Input, "{bad}");
        }
    }

    #[test]
    fn subfolders_are_split_at_the_first_colon() {
        assert_eq!(split_subfolder("latest"), ("latest", None));
        assert_eq!(split_subfolder("ab12:/srv/a:b"), ("ab12", Some("/srv/a:b")));
        assert_eq!(split_subfolder("latest:"), ("latest", Some("")));
    }

    #[test]
    fn groups_ignore_the_order_of_paths() {
        let all = vec![
            snapshot(1, "a", &["/x", "/y"], &["t"]),
            snapshot(2, "a", &["/y", "/x"], &[]),
            snapshot(3, "b", &["/x"], &[]),
        ];
        let sizes = |by: &str| {
            let groups = group(all.clone(), by.parse().unwrap());
            groups.iter().map(|(_, members)| members.len()).collect::<Vec<_>>()
        };
        assert_eq!(sizes("host,paths"), [2, 1]);
        assert_eq!(sizes("hosts,path,tags"), [1, 1, 1]);
        assert_eq!(sizes(""), [3]);
        assert!("colour".parse::<GroupBy>().is_err());
        let key = GroupKey::of(&all[1].1, GroupBy::default());
        let json = serde_json::to_string(&key).unwrap();
        assert_eq!(json, r#"{"hostname":"a","paths":["/x","/y"],"tags":null}"#);
    }

    #[test]
    fn a_parent_is_of_the_same_place_and_not_newer() {
        let full = BackupKind::Full.tag();
        let all = vec![
            snapshot(1, "a", &["/x", "/y"], &[&full]),
            snapshot(2, "a", &["/y", "/x"], &[]),
            snapshot(3, "a", &["/x", "/y", "/z"], &[&full]),
            snapshot(4, "b", &["/x", "/y"], &[]),
            snapshot(9, "a", &["/x", "/y"], &[]),
        ];
        let find = |time, only_full| {
            let paths = ["/x".to_owned(), "/y".to_owned()];
            let time = Timestamp::new(time, 0, 0);
            let query = SourceQuery { hostname: "a", paths: &paths, time };
            let mut earlier = all.clone();
            earlier.retain(|(_, snapshot)| query.matches(snapshot));
            find_parent(&earlier, only_full).map(|(_, found)| found.time.seconds())
        };
        assert_eq!(find(5, false), Some(2));
        assert_eq!(find(5, true), Some(1));
        assert_eq!(find(9, false), Some(9));
        assert_eq!(find(0, false), None);
    }
}
