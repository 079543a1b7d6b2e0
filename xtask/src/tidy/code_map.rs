//! The code map: `ARCHITECTURE.md` names what there is, and only that.
//!
//! A map that drifts is worse than none. Its form is simple enough to check:
//!
//! - The map is the section whose heading contains "code map", and ends at the next heading of
//!   the same rank.
//! - A crate has a heading with its folder in backticks, such as ``### `crates/model` ``. Below
//!   it, paths may be written from the root, from the crate or from its `src`.
//! - Every crate of the workspace and every top-level module (`src/NAME.rs` or `src/NAME/`) is
//!   named by its path in backticks.
//! - Whatever stands in backticks in the map and looks like a path must exist.
//! - Every crate except the tools of developers has a line with `**Invariant**` that says what
//!   is deliberately absent.

use std::collections::{BTreeMap, BTreeSet};

use super::Violation;
use crate::workspace::{Package, Tree};

const MAP: &str = "ARCHITECTURE.md";
const INVARIANT: &str = "**Invariant";

/// Crates that only developers see have no invariant to keep.
const WITHOUT_INVARIANT: &[&str] = &["crates/testkit", "xtask"];

/// What the map says.
#[derive(Default)]
struct CodeMap {
    /// The line of the map's heading; none when there is no map.
    line: Option<usize>,
    /// Every path that the map names and that exists, from the root.
    named: BTreeSet<String>,
    /// What looks like a path and is none, with its line.
    missing: Vec<(usize, String)>,
    /// The crates that have a heading, and whether they have an invariant.
    crates: BTreeMap<String, bool>,
}

/// Finds what the map lacks and what it made up.
pub(super) fn check(tree: &Tree, packages: &[Package]) -> Vec<Violation> {
    let Some(text) = tree.text(MAP) else {
        return vec![Violation::new(MAP, 1, "there is no ARCHITECTURE.md", "write the code map")];
    };
    let map = read(text, tree);
    let Some(line) = map.line else {
        let remedy = "write a section with that heading";
        return vec![Violation::new(MAP, 1, "no heading says \"Code map\"", remedy)];
    };
    let mut violations: Vec<Violation> = map.missing.iter().map(missing).collect();
    for package in packages {
        let folder = package.manifest.trim_end_matches("/Cargo.toml");
        violations.extend(check_crate(&map, folder, line));
        let unnamed = modules(tree, folder).into_iter().filter(|module| !map.names_module(module));
        violations.extend(unnamed.map(|module| {
            let wrong = format!("the module `{module}` is not on the code map");
            Violation::new(MAP, line, wrong, "name its path in backticks, with what it is for")
        }));
    }
    violations
}

fn missing((line, path): &(usize, String)) -> Violation {
    let wrong = format!("`{path}` is on the code map and does not exist");
    Violation::new(MAP, *line, wrong, "correct the path, or write it without backticks")
}

fn check_crate(map: &CodeMap, folder: &str, line: usize) -> Option<Violation> {
    match map.crates.get(folder) {
        None => {
            let wrong = format!("the crate `{folder}` is not on the code map");
            let remedy = format!("give it a heading with `{folder}` in backticks");
            Some(Violation::new(MAP, line, wrong, remedy))
        }
        Some(false) if !WITHOUT_INVARIANT.contains(&folder) => {
            let wrong = format!("`{folder}` has no {INVARIANT}** line");
            Some(Violation::new(MAP, line, wrong, "say what is deliberately absent from it"))
        }
        Some(_) => None,
    }
}

impl CodeMap {
    /// Whether the map names the module `path`, given without `.rs`, as a file or a folder.
    fn names_module(&self, path: &str) -> bool {
        self.named.contains(path) || self.named.contains(&format!("{path}.rs"))
    }
}

/// The top-level modules of a crate under `crates/`, as paths without `.rs`.
fn modules(tree: &Tree, folder: &str) -> BTreeSet<String> {
    if !folder.starts_with("crates/") {
        return BTreeSet::new();
    }
    let src = format!("{folder}/src");
    let stem = |path: &str| {
        let first = path[src.len() + 1..].split('/').next().unwrap_or_default();
        first.trim_end_matches(".rs").to_owned()
    };
    let stems: BTreeSet<String> = tree.below(&src).map(stem).collect();
    let is_module = |stem: &String| !matches!(stem.as_str(), "lib" | "main");
    stems.into_iter().filter(is_module).map(|stem| format!("{src}/{stem}")).collect()
}

fn read(text: &str, tree: &Tree) -> CodeMap {
    let mut map = CodeMap::default();
    let (mut map_rank, mut in_fence) = (None, false);
    let mut current: Option<(usize, String)> = None;
    for (i, line) in text.lines().enumerate() {
        in_fence ^= line.trim_start().starts_with("```");
        if in_fence {
            continue;
        }
        if let Some(rank) = heading_rank(line) {
            if line.to_lowercase().contains("code map") {
                map.line = Some(i + 1);
                map_rank = Some(rank);
            } else if map_rank.is_some_and(|map_rank| rank <= map_rank) {
                map_rank = None;
            }
            current = current.filter(|(above, _)| *above < rank);
        }
        if map_rank.is_none() {
            continue;
        }
        if let Some(rank) = heading_rank(line)
            && let Some(folder) = spans(line).find(|span| is_crate(span, tree))
        {
            let folder = folder.trim_end_matches('/').to_owned();
            map.crates.entry(folder.clone()).or_default();
            current = Some((rank, folder));
        }
        let folder = current.as_ref().map(|(_, folder)| folder.as_str());
        if let Some(folder) = folder.filter(|_| line.contains(INVARIANT)) {
            map.crates.insert(folder.to_owned(), true);
        }
        for span in spans(line) {
            match resolve(span, folder, tree) {
                Some(path) => drop(map.named.insert(path)),
                None if looks_like_path(span) => map.missing.push((i + 1, span.to_owned())),
                None => {}
            }
        }
    }
    map
}

fn heading_rank(line: &str) -> Option<usize> {
    let rank = line.bytes().take_while(|&byte| byte == b'#').count();
    (rank > 0 && line[rank..].starts_with(' ')).then_some(rank)
}

/// The texts in backticks.
fn spans(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

fn is_crate(span: &str, tree: &Tree) -> bool {
    tree.exists(&format!("{}/Cargo.toml", span.trim_end_matches('/')))
}

/// The path from the root that `span` means, if it exists.
fn resolve(span: &str, folder: Option<&str>, tree: &Tree) -> Option<String> {
    let span = span.trim_end_matches('/');
    let within = folder.map(|folder| [format!("{folder}/{span}"), format!("{folder}/src/{span}")]);
    let mut candidates = within.into_iter().flatten().chain([span.to_owned()]);
    candidates.find(|path| !span.is_empty() && tree.exists(path))
}

fn looks_like_path(span: &str) -> bool {
    let is_path_char = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/');
    let has_extension = [".rs", ".md", ".toml", ".sh", ".py"].iter().any(|e| span.ends_with(e));
    !span.is_empty() && span.chars().all(is_path_char) && (span.contains('/') || has_extension)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "\
# Architecture

`not/a/path` outside of the map is nobody's business.

## Code map

### `crates/model`

Words: `id.rs` for ids, `units/` for units. See `Vec<T>` and `docs/`.

**Invariant**: no I/O.

### `xtask`

## Later

`gone.rs`
";

    fn check_map(map: &str) -> Vec<String> {
        let tree = Tree::of(&[
            ("ARCHITECTURE.md", map),
            ("crates/model/Cargo.toml", ""),
            ("crates/model/src/id.rs", ""),
            ("crates/model/src/lib.rs", ""),
            ("crates/model/src/units/size.rs", ""),
            ("docs/a.md", ""),
            ("xtask/Cargo.toml", ""),
            ("xtask/src/main.rs", ""),
            ("xtask/src/tidy.rs", ""),
        ]);
        let package = |name: &str, folder: &str| Package {
            name: name.to_owned(),
            manifest: format!("{folder}/Cargo.toml"),
            dependencies: vec![],
        };
        check(&tree, &[package("model", "crates/model"), package("xtask", "xtask")])
            .into_iter()
            .map(|violation| violation.wrong)
            .collect()
    }

    #[test]
    fn a_true_map_passes() {
        assert_eq!(check_map(GOOD), [""; 0]);
    }

    #[test]
    fn paths_may_be_written_from_the_root() {
        let map = GOOD.replace("`id.rs`", "`crates/model/src/id.rs`");
        assert_eq!(check_map(&map), [""; 0]);
        let map = GOOD.replace("`id.rs`", "`src/id.rs`");
        assert_eq!(check_map(&map), [""; 0]);
    }

    #[test]
    fn unnamed_crates_and_modules_are_found() {
        let map = GOOD.replace("`units/`", "units");
        let wrong = "the module `crates/model/src/units` is not on the code map";
        assert_eq!(check_map(&map), [wrong]);
        let map = GOOD.replace("### `xtask`", "### Chores");
        assert_eq!(check_map(&map), ["the crate `xtask` is not on the code map"]);
    }

    #[test]
    fn invented_paths_are_found() {
        let map = GOOD.replace("See `Vec<T>`", "See `time.rs`");
        assert_eq!(check_map(&map), ["`time.rs` is on the code map and does not exist"]);
    }

    #[test]
    fn a_crate_says_what_is_absent() {
        let map = GOOD.replace("**Invariant**", "Invariant");
        assert_eq!(check_map(&map), ["`crates/model` has no **Invariant** line"]);
    }

    #[test]
    fn a_missing_map_is_found() {
        assert_eq!(check(&Tree::of(&[]), &[])[0].wrong, "there is no ARCHITECTURE.md");
        assert_eq!(check_map("# Architecture\n"), ["no heading says \"Code map\""]);
    }
}
