//! Whether a target and production's data overlap on disk.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use super::mounts::Mounts;

/// Finds the first source that a target would overlap: the same folder, one inside the other, by
/// name, by device and inode of all folders above, or by place in the file system through any
/// mount. Either may be missing yet: what exists of its path counts then.
#[must_use]
pub fn shares_directory(target: &Path, sources: &[PathBuf]) -> Option<PathBuf> {
    let mounts = Mounts::of_self();
    let target = Spot::of(target, &mounts);
    sources.iter().find(|source| target.overlaps(&Spot::of(source, &mounts))).cloned()
}

/// A path and all folders above it.
struct Spot {
    path: PathBuf,
    place: Option<super::mounts::Place>,
    /// Its own, when it exists.
    own: Option<(u64, u64)>,
    /// Its own and those of all folders above it that exist.
    above: Vec<(u64, u64)>,
}

impl Spot {
    fn of(path: &Path, mounts: &Mounts) -> Self {
        let path = resolved(path);
        let place = mounts.place(&path);
        let above = path.ancestors().filter_map(identity).collect();
        Self { place, own: identity(&path), above, path }
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.is_in(other) || other.is_in(self)
    }

    fn is_in(&self, other: &Self) -> bool {
        let by_place = self.place.as_ref().zip(other.place.as_ref());
        self.path.starts_with(&other.path)
            || other.own.is_some_and(|own| self.above.contains(&own))
            || by_place.is_some_and(|(own, other)| own.is_in(other))
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|status| (status.dev(), status.ino()))
}

/// The path without symlinks, as far as it exists.
fn resolved(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let existing = path.ancestors().find_map(|above| Some((above, fs::canonicalize(above).ok()?)));
    match existing {
        Some((above, real)) => match path.strip_prefix(above) {
            Ok(rest) if !rest.as_os_str().is_empty() => real.join(rest),
            _ => real,
        },
        None => path,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use muster_testkit::Scratch;

    use super::*;

    #[test]
    fn overlaps_are_found_under_every_name() {
        let scratch = Scratch::new("directories").unwrap();
        fs::create_dir_all(scratch.join("srv/orders/uploads")).unwrap();
        fs::create_dir_all(scratch.join("drills/1")).unwrap();
        symlink(scratch.join("srv/orders"), scratch.join("link")).unwrap();
        let check = |target: &str, source: &str, expected: bool| {
            let source = scratch.join(source);
            let found = shares_directory(&scratch.join(target), std::slice::from_ref(&source));
            assert_eq!(found, expected.then_some(source), "{target}");
        };
        check("drills/1", "srv/orders", false);
        check("srv/orders-2", "srv/orders", false);
        check("srv/orders", "srv/orders", true);
        check("srv/orders/uploads/new/one", "srv/orders", true);
        check("srv", "srv/orders", true);
        check("link/uploads", "srv/orders", true);
        check("link/new", "srv/orders", true);
        check("srv/orders/new", "link", true);
        check("drills/1", "missing/source", false);
        check("missing/source/x", "missing/source", true);
        check("drills/1/../../srv/orders/x", "srv/orders", true);
    }
}
