//! What the chores know about the workspace: its files, and its packages with their arrows.
//!
//! Both are plain values, so that a check is a function from a [`Tree`] or a list of
//! [`Package`]s to findings, and its tests need no disk.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};
use serde_json::Value;

/// Every file that git would commit, by its path relative to the root.
pub(crate) struct Tree {
    /// The files that are text (UTF-8), sorted by path.
    pub(crate) files: Vec<File>,
    paths: BTreeSet<String>,
}

/// One text file.
pub(crate) struct File {
    /// Path relative to the root, with `/`.
    pub(crate) path: String,
    /// The whole text.
    pub(crate) text: String,
}

/// A package of the workspace and the packages it names in its manifest.
#[derive(Debug)]
pub(crate) struct Package {
    /// The name without the `muster-` prefix; the package `muster` is `cli`.
    pub(crate) name: String,
    /// Path of its manifest relative to the root.
    pub(crate) manifest: String,
    /// What it depends on, from the workspace and from outside.
    pub(crate) dependencies: Vec<Dependency>,
}

/// One arrow of a manifest.
#[derive(Debug)]
pub(crate) struct Dependency {
    /// Like [`Package::name`] for our own, the registry's name for others.
    pub(crate) name: String,
    /// Whether the dependency lies in this workspace.
    pub(crate) is_ours: bool,
    /// Whether only tests see it.
    pub(crate) is_dev: bool,
}

/// Finds the root: the folder above this crate, as cargo knew it when it built `xtask`.
pub(crate) fn root() -> anyhow::Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask has no parent")?;
    ensure!(root.join("Cargo.toml").is_file(), "no workspace in {}", root.display());
    Ok(root.to_owned())
}

impl Tree {
    /// Reads all files that are committed or would be (not ignored) below `root`.
    pub(crate) fn read(root: &Path) -> anyhow::Result<Tree> {
        let paths: BTreeSet<String> =
            committed(root)?.into_iter().filter(|path| root.join(path).is_file()).collect();
        let mut files = Vec::new();
        for path in &paths {
            let bytes = std::fs::read(root.join(path)).with_context(|| format!("read {path}"))?;
            if let Ok(text) = String::from_utf8(bytes) {
                files.push(File { path: path.clone(), text });
            }
        }
        Ok(Tree { files, paths })
    }

    /// The text of one file.
    pub(crate) fn text(&self, path: &str) -> Option<&str> {
        self.files.iter().find(|file| file.path == path).map(|file| file.text.as_str())
    }

    /// Whether `path` is a committed file, or a folder with one in it.
    pub(crate) fn exists(&self, path: &str) -> bool {
        let path = path.trim_end_matches('/');
        path.is_empty() || self.paths.contains(path) || self.below(path).next().is_some()
    }

    /// The paths inside the folder `folder`.
    pub(crate) fn below(&self, folder: &str) -> impl Iterator<Item = &str> {
        let start = format!("{folder}/");
        self.paths
            .range(start.clone()..)
            .map(String::as_str)
            .take_while(move |path| path.starts_with(&start))
    }

    /// The Rust sources.
    pub(crate) fn rust(&self) -> impl Iterator<Item = &File> {
        self.files.iter().filter(|file| file.path.ends_with(".rs"))
    }

    /// A tree made of the given paths and texts.
    #[cfg(test)]
    pub(crate) fn of(files: &[(&str, &str)]) -> Tree {
        Tree {
            paths: files.iter().map(|(path, _)| (*path).to_owned()).collect(),
            files: files
                .iter()
                .map(|(path, text)| File { path: (*path).to_owned(), text: (*text).to_owned() })
                .collect(),
        }
    }
}

/// Asks git which files count. `safe.directory` because CI may run as another user than the one
/// who made the checkout, and nothing is run or written here.
fn committed(root: &Path) -> anyhow::Result<Vec<String>> {
    let listing = Command::new("git")
        .args(["-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others"])
        .args(["--exclude-standard", "--deduplicate"])
        .current_dir(root)
        .output()
        .context("run git (tidy looks at what git would commit; is git installed?)")?;
    if !listing.status.success() {
        bail!("git ls-files failed: {}", String::from_utf8_lossy(&listing.stderr).trim());
    }
    let text = String::from_utf8(listing.stdout).context("a committed path is not UTF-8")?;
    Ok(text.split_terminator('\0').map(str::to_owned).collect())
}

/// Reads the packages of the workspace from `cargo metadata`.
pub(crate) fn packages(root: &Path) -> anyhow::Result<Vec<Package>> {
    let metadata = metadata(root)?;
    let packages = metadata["packages"].as_array().context("metadata without packages")?;
    packages.iter().map(|package| read_package(package, root)).collect()
}

/// Where cargo puts what it builds.
pub(crate) fn target_dir(root: &Path) -> anyhow::Result<PathBuf> {
    Ok(PathBuf::from(text_of(&metadata(root)?, "target_directory")?))
}

fn metadata(root: &Path) -> anyhow::Result<Value> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .current_dir(root)
        .output()
        .context("run cargo metadata")?;
    if !output.status.success() {
        bail!("cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    serde_json::from_slice(&output.stdout).context("read cargo metadata")
}

fn read_package(package: &Value, root: &Path) -> anyhow::Result<Package> {
    let manifest = text_of(package, "manifest_path")?;
    let manifest = Path::new(manifest).strip_prefix(root).unwrap_or(Path::new(manifest));
    let dependencies = package["dependencies"].as_array().context("no dependencies listed")?;
    Ok(Package {
        name: short_name(text_of(package, "name")?),
        manifest: manifest.to_string_lossy().into_owned(),
        dependencies: dependencies.iter().map(read_dependency).collect::<anyhow::Result<_>>()?,
    })
}

/// A dependency of ours is one with a path: tidy's lockfile check excludes other local ones.
fn read_dependency(dependency: &Value) -> anyhow::Result<Dependency> {
    let name = text_of(dependency, "name")?;
    let is_ours = dependency["path"].is_string();
    Ok(Dependency {
        name: if is_ours { short_name(name) } else { name.to_owned() },
        is_ours,
        is_dev: dependency["kind"] == "dev",
    })
}

fn text_of<'a>(value: &'a Value, key: &str) -> anyhow::Result<&'a str> {
    value[key].as_str().with_context(|| format!("cargo metadata without `{key}`"))
}

fn short_name(name: &str) -> String {
    match name {
        "muster" => "cli".to_owned(),
        _ => name.strip_prefix("muster-").unwrap_or(name).to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_exists_when_a_file_is_in_it() {
        let tree = Tree::of(&[("docs/a.md", ""), ("docs-old/b.md", "")]);
        assert!(tree.exists("docs"));
        assert!(tree.exists("docs/"));
        assert!(tree.exists("docs/a.md"));
        assert!(!tree.exists("doc"));
        assert!(!tree.exists("docs/b.md"));
        assert_eq!(tree.below("docs").collect::<Vec<_>>(), ["docs/a.md"]);
    }

    #[test]
    fn packages_go_by_the_name_of_their_folder() {
        assert_eq!(short_name("muster"), "cli");
        assert_eq!(short_name("muster-model"), "model");
        assert_eq!(short_name("xtask"), "xtask");
    }

    #[test]
    fn this_workspace_can_be_read() {
        let root = root().unwrap();
        let packages = packages(&root).unwrap();
        let cli = packages.iter().find(|package| package.name == "cli").unwrap();
        assert_eq!(cli.manifest, "crates/cli/Cargo.toml");
        assert!(cli.dependencies.iter().any(|d| d.name == "model" && d.is_ours && !d.is_dev));
        assert!(cli.dependencies.iter().any(|d| d.name == "tempfile" && d.is_dev));
    }
}
