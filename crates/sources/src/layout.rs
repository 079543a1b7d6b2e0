//! Where the paths of a snapshot lie in the folder that they are restored into.
//!
//! Straight into DIR: of one folder the *content* lies in DIR; a single file, and each of several
//! paths, lies in DIR under its last name. How many paths there were is a tag of the snapshot
//! ([`PATHS_TAG`]), so that a path that was missing on the day of the backup does not change
//! where the others go. Two paths with the same last name are refused before anything is backed
//! up: a number behind one of them would depend on their order, and nobody could tell them apart.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use muster_repository::{
    format::{
        snapshot::Snapshot,
        tree::{Node, NodeKind},
    },
    id::BlobId,
    repository::IndexedRepository,
    tree_walk::{Place, components, find_place, find_subtree},
};

use crate::{
    error::{AmbiguousName, RestoreDataError},
    record::tag_value,
};

/// Begins the tag that says how many paths were asked for.
pub(crate) const PATHS_TAG: &str = "muster:paths=";

/// What of a snapshot goes where.
#[derive(Debug)]
pub(crate) enum Layout {
    /// What is in the tree goes straight into the target.
    Content {
        /// The folder's tree.
        tree: BlobId,
        /// The folder itself; `None` for the root.
        folder: Option<Box<Node>>,
    },
    /// Each goes into the target under its name.
    Names(Vec<Named>),
}

/// A path that is restored under its last name.
#[derive(Debug)]
pub(crate) struct Named {
    /// The tree of the folder that it is in.
    pub(crate) parent: BlobId,
    /// Its name there, and in the target.
    pub(crate) name: String,
}

impl Layout {
    /// The layout of a snapshot.
    ///
    /// # Errors
    /// Fails when names are ambiguous, or a path is not in the snapshot.
    pub(crate) fn of(
        repository: &IndexedRepository,
        snapshot: &Snapshot,
    ) -> Result<Self, RestoreDataError> {
        let mut reader = repository.blob_reader()?;
        let asked_for = tag_value(snapshot, PATHS_TAG).and_then(|count| count.parse().ok());
        if let ([path], 1) = (&snapshot.paths[..], asked_for.unwrap_or(snapshot.paths.len())) {
            match find_place(&mut reader, snapshot.tree, path.as_bytes())? {
                Place::Root(tree) => return Ok(Self::Content { tree, folder: None }),
                Place::Entry(node) => {
                    if let (NodeKind::Dir, Some(tree)) = (node.kind, node.subtree) {
                        return Ok(Self::Content { tree, folder: Some(node) });
                    }
                }
            }
        }
        let mut named = Vec::new();
        for (name, path) in names(snapshot.paths.iter().map(String::as_str))? {
            let folders = components(path.as_bytes());
            let above = folders.split_last().map_or(&[][..], |(_, above)| above).join(&b'/');
            let parent = find_subtree(&mut reader, snapshot.tree, &above)?;
            named.push(Named { parent, name });
        }
        Ok(Self::Names(named))
    }

    /// The folder or file that `{{ target.data.NAME.path }}` stands for.
    pub(crate) fn path(&self, target: &Path) -> PathBuf {
        match self {
            Self::Names(named) if named.len() == 1 => target.join(&named[0].name),
            Self::Content { .. } | Self::Names(_) => target.to_owned(),
        }
    }
}

/// The last name of each path, with the path.
///
/// # Errors
/// Fails when two have the same, or one has none (`/`) and is not alone.
pub(crate) fn names<'p>(
    paths: impl IntoIterator<Item = &'p str>,
) -> Result<BTreeMap<String, &'p str>, AmbiguousName> {
    let mut names: BTreeMap<String, &str> = BTreeMap::new();
    for path in paths {
        let name = components(path.as_bytes()).pop().unwrap_or(b".");
        let name = String::from_utf8_lossy(name).into_owned();
        if let Some(first) = names.insert(name.clone(), path)
            && first != path
        {
            let (first, second) = (first.to_owned(), path.to_owned());
            return Err(AmbiguousName { name, first, second });
        }
    }
    match names.get(".") {
        Some(root) if names.len() > 1 => {
            let other = names.values().find(|path| *path != root).copied().unwrap_or_default();
            let (first, second) = ((*root).to_owned(), other.to_owned());
            Err(AmbiguousName { name: ".".to_owned(), first, second })
        }
        _ => Ok(names),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(paths: &[&str], expected: Option<&[&str]>) {
        let found = names(paths.iter().copied()).ok();
        let found = found.map(|names| names.into_keys().collect::<Vec<_>>());
        assert_eq!(found.as_deref(), expected.map(|names| names.map_strings()).as_deref());
    }

    trait Strings {
        fn map_strings(&self) -> Vec<String>;
    }

    impl Strings for [&str] {
        fn map_strings(&self) -> Vec<String> {
            self.iter().map(|&name| name.to_owned()).collect()
        }
    }

    #[test]
    fn last_names_are_unambiguous_or_refused() {
        check(&["/srv/a", "/srv/b"], Some(&["a", "b"]));
        check(&["/srv/a", "/srv/a"], Some(&["a"]));
        check(&["/srv/a", "/var/a"], None);
        check(&["/srv/a/../b", "/var/b"], None);
        check(&["/"], Some(&["."]));
        check(&["/", "/srv"], None);
    }
}
