//! Where each source stands in a snapshot's tree.
//!
//! As in restic: `/srv/data` becomes `srv/data`, with the metadata of `/srv`; the relative
//! `a/b` becomes `a/b`, `../a` becomes `a`, and `.` stands for the entries of the working
//! folder. Two sources that would take the same top-level name from different folders get
//! `name` and `name-1`.
//!
//! # Source
//! restic, `internal/archiver/tree.go`.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs, io,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Component, Path, PathBuf},
};

/// One name in the planned tree.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// The file or folder at this path, with all that is below.
    Source {
        /// Relative to the working folder, or absolute.
        path: PathBuf,
        /// Whether the user named it; then no pattern excludes it.
        named: bool,
    },
    /// A folder on the way to sources: its own metadata, and nothing else of its content.
    Way {
        /// Where its metadata is.
        path: PathBuf,
        /// What is below.
        entries: BTreeMap<Vec<u8>, Target>,
    },
}

/// Plans the top of a snapshot's tree.
///
/// # Errors
/// Fails when a folder that stands for its entries (`.`) cannot be listed.
pub(super) fn plan(sources: &[PathBuf]) -> io::Result<BTreeMap<Vec<u8>, Target>> {
    let mut top = BTreeMap::new();
    // The folder below which each top-level name was found.
    let mut roots: BTreeMap<Vec<u8>, PathBuf> = BTreeMap::new();
    for (path, named) in expand(sources)? {
        let names = names(&path);
        let root = root(&path);
        let mut name = names[0].clone();
        for n in 1.. {
            match roots.get(&name) {
                Some(other) if *other != root => {
                    name = [&names[0][..], format!("-{n}").as_bytes()].concat();
                }
                _ => break,
            }
        }
        roots.insert(name.clone(), root.clone());
        let way = root.join(OsStr::from_bytes(&names[0]));
        insert(&mut top, name, way, &names[1..], Target::Source { path, named });
    }
    Ok(top)
}

/// Replaces folders without a name of their own (`.`, `..`, `/`) by their entries.
fn expand(sources: &[PathBuf]) -> io::Result<Vec<(PathBuf, bool)>> {
    let mut expanded = Vec::new();
    for source in sources {
        let path = clean(source);
        if !names(&path).is_empty() {
            expanded.push((path, true));
            continue;
        }
        let mut entries: Vec<_> =
            fs::read_dir(&path)?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<_>>()?;
        entries.sort();
        expanded.extend(entries.into_iter().map(|name| (join(&path, &name), false)));
    }
    Ok(expanded)
}

fn join(folder: &Path, name: &OsStr) -> PathBuf {
    if folder == Path::new(".") { PathBuf::from(name) } else { folder.join(name) }
}

/// The path without `.` and without `name/..`, as Go's `filepath.Clean`: by its text alone.
pub(super) fn clean(path: &Path) -> PathBuf {
    let mut parts: Vec<Component<'_>> = Vec::new();
    for part in path.components() {
        match (part, parts.last()) {
            (Component::CurDir, _) | (Component::ParentDir, Some(Component::RootDir)) => {}
            (Component::ParentDir, Some(Component::Normal(_))) => drop(parts.pop()),
            _ => parts.push(part),
        }
    }
    if parts.is_empty() { PathBuf::from(".") } else { parts.into_iter().collect() }
}

/// The names of a clean path, without leading `..`.
fn names(path: &Path) -> Vec<Vec<u8>> {
    let name = |part| match part {
        Component::Normal(name) => Some(name.to_os_string().into_vec()),
        _ => None,
    };
    path.components().filter_map(name).collect()
}

/// The folder that holds the first name of a clean path: `/`, nothing, or some `..`.
fn root(path: &Path) -> PathBuf {
    path.components().take_while(|part| !matches!(part, Component::Normal(_))).collect()
}

fn insert(
    entries: &mut BTreeMap<Vec<u8>, Target>,
    name: Vec<u8>,
    way: PathBuf,
    names: &[Vec<u8>],
    target: Target,
) {
    let Some((next, rest)) = names.split_first() else {
        // A source covers those within it that came before.
        match entries.get(&name) {
            Some(Target::Source { .. }) => {}
            Some(Target::Way { .. }) | None => drop(entries.insert(name, target)),
        }
        return;
    };
    let next_way = way.join(OsStr::from_bytes(next));
    let folder =
        entries.entry(name).or_insert_with(|| Target::Way { path: way, entries: BTreeMap::new() });
    // Where a source stands already, it covers this one.
    if let Target::Way { entries, .. } = folder {
        insert(entries, next.clone(), next_way, rest, target);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(entries: &BTreeMap<Vec<u8>, Target>, text: &mut String) {
        for (name, target) in entries {
            let name = String::from_utf8_lossy(name);
            match target {
                Target::Source { path, .. } => *text += &format!("{name}={} ", path.display()),
                Target::Way { path, entries } => {
                    *text += &format!("{name}@{}[ ", path.display());
                    show(entries, text);
                    *text += "] ";
                }
            }
        }
    }

    #[track_caller]
    fn check(sources: &[&str], expected: &str) {
        let sources: Vec<_> = sources.iter().map(PathBuf::from).collect();
        let mut text = String::new();
        show(&plan(&sources).unwrap(), &mut text);
        assert_eq!(text.trim(), expected);
    }

    #[test]
    fn sources_stand_where_restic_puts_them() {
        check(&["/srv/data"], "srv@/srv[ data=/srv/data ]");
        check(&["a/b"], "a@a[ b=a/b ]");
        check(&["../../x/y"], "x@../../x[ y=../../x/y ]");
        check(&["/srv/a", "/srv/b"], "srv@/srv[ a=/srv/a b=/srv/b ]");
        check(&["./a/./c/../b/"], "a@a[ b=a/b ]");
        check(&["/../etc"], "etc=/etc");
    }

    #[test]
    fn names_that_clash_are_numbered() {
        check(&["a", "../a"], "a=a a-1=../a");
        check(&["/srv/a", "srv/b"], "srv@/srv[ a=/srv/a ] srv-1@srv[ b=srv/b ]");
    }

    #[test]
    fn a_source_within_another_is_there_once() {
        check(&["/srv/a/b", "/srv/a", "/srv/a"], "srv@/srv[ a=/srv/a ]");
    }

    #[test]
    fn the_root_stands_for_its_entries() {
        let top = plan(&[PathBuf::from("/")]).unwrap();
        assert!(matches!(&top[&b"etc"[..]], Target::Source { named: false, .. }));
    }
}
