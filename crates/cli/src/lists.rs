//! Lists that users keep in files: of patterns, and of what to back up.
//!
//! # Source
//! restic, `internal/filter/exclude.go`; `cmd/restic/cmd_backup.go`, `collectTargets`.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs,
    io::{self, Read},
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
};

use muster_repository::exclude::{PatternError, Patterns, patterns_in_file};

use crate::error::{Failure, Problem};

/// The name that stands for standard input.
const STANDARD_INPUT: &str = "-";

/// Patterns from flags and from files; the ones that ignore case are apart.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PatternLists<'a> {
    /// The flag that takes a pattern, for errors.
    pub(crate) flag: &'static str,
    /// `--exclude`, `--include`.
    pub(crate) exact: &'a [OsString],
    /// `--exclude-file`, `--include-file`.
    pub(crate) exact_files: &'a [PathBuf],
    /// `--iexclude`, `--iinclude`.
    pub(crate) ignoring_case: &'a [OsString],
    /// `--iexclude-file`, `--iinclude-file`.
    pub(crate) ignoring_case_files: &'a [PathBuf],
}

impl PatternLists<'_> {
    /// Reads the files and parses all patterns. Lists without a pattern are left out.
    pub(crate) fn parse(&self) -> Result<Vec<Patterns>, Failure> {
        let exact = all(self.exact, self.exact_files)?;
        let ignoring_case = all(self.ignoring_case, self.ignoring_case_files)?;
        let malformed = |error: PatternError| {
            let patterns = error.patterns.join(", ");
            Failure::usage(format!("understand the pattern {patterns} of {}", self.flag))
                .help("close every '[', and write '\\\\' for a backslash")
        };
        let parsed = [
            Patterns::parse(exact).map_err(malformed)?,
            Patterns::parse_ignoring_case(ignoring_case).map_err(malformed)?,
        ];
        Ok(parsed.into_iter().filter(|patterns| !patterns.is_empty()).collect())
    }
}

fn all(given: &[OsString], files: &[PathBuf]) -> Result<Vec<Vec<u8>>, Failure> {
    let mut patterns: Vec<_> =
        given.iter().map(|pattern| pattern.as_os_str().as_bytes().to_vec()).collect();
    for file in files {
        let variable =
            |name: &[u8]| env::var_os(OsStr::from_bytes(name)).map(OsStringExt::into_vec);
        patterns.extend(patterns_in_file(&read(file)?, variable));
    }
    Ok(patterns)
}

/// Files that list what to back up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SourceLists<'a> {
    /// `--files-from`: a glob a line, with comments.
    pub(crate) globs: &'a [PathBuf],
    /// `--files-from-verbatim`: a path a line.
    pub(crate) lines: &'a [PathBuf],
    /// `--files-from-raw`: paths, each ended by a zero byte.
    pub(crate) raw: &'a [PathBuf],
}

impl SourceLists<'_> {
    /// Reads the lists. `unmatched` is told of globs that match nothing.
    pub(crate) fn read(&self, mut unmatched: impl FnMut(&str)) -> Result<Vec<PathBuf>, Failure> {
        let mut sources = Vec::new();
        for file in self.globs {
            for line in read(file)?.split(|byte| *byte == b'\n') {
                let line = line.trim_ascii();
                if line.is_empty() || line.starts_with(b"#") {
                    continue;
                }
                let found = expand(line).map_err(|problem| {
                    let shown = String::from_utf8_lossy(line);
                    let message =
                        format!("use the line '{shown}' of {}: {problem}", file.display());
                    Failure::new(Problem::ListFile, message)
                })?;
                if found.is_empty() {
                    unmatched(&String::from_utf8_lossy(line));
                }
                sources.extend(found);
            }
        }
        for file in self.lines {
            let content = read(file)?;
            let lines = content.split(|byte| *byte == b'\n');
            let lines = lines.map(|line| line.strip_suffix(b"\r").unwrap_or(line));
            sources.extend(lines.filter(|line| !line.is_empty()).map(path));
        }
        for file in self.raw {
            sources.extend(split_raw(&read(file)?, file)?);
        }
        Ok(sources)
    }
}

fn path(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(bytes))
}

fn split_raw(content: &[u8], file: &Path) -> Result<Vec<PathBuf>, Failure> {
    let failure = |problem: &str| {
        let message = format!("use the list {}: {problem}", file.display());
        Failure::new(Problem::ListFile, message)
            .help("end every path with one zero byte, as 'find -print0' does")
    };
    let Some(names) = content.strip_suffix(b"\0") else {
        return match content.is_empty() {
            true => Ok(Vec::new()),
            false => Err(failure("the zero byte after the last path is missing")),
        };
    };
    let names: Vec<_> = names.split(|byte| *byte == 0).collect();
    match names.iter().any(|name| name.is_empty()) {
        true => Err(failure("it holds an empty path")),
        false => Ok(names.into_iter().map(path).collect()),
    }
}

/// Reads a file, or standard input for `-`.
fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    let content = match file.as_os_str() == STANDARD_INPUT {
        true => {
            let mut content = Vec::new();
            io::stdin().lock().read_to_end(&mut content).map(|_| content)
        }
        false => fs::read(file),
    };
    content.map_err(|error| {
        Failure::new(Problem::ListFile, format!("read the list {}", file.display()))
            .caused_by(&error)
    })
}

/// The paths that a glob matches, sorted; a path without wildcards matches itself if it is
/// there. Folders that cannot be listed match nothing, as in Go's `filepath.Glob`.
fn expand(glob: &[u8]) -> Result<Vec<PathBuf>, &'static str> {
    let absolute = glob.starts_with(b"/");
    let mut found = vec![PathBuf::from(if absolute { "/" } else { "" })];
    for component in glob.split(|byte| *byte == b'/').filter(|component| !component.is_empty()) {
        if !component.iter().any(|byte| b"*?[\\".contains(byte)) {
            let name = OsStr::from_bytes(component);
            found.iter_mut().for_each(|folder| folder.push(name));
            continue;
        }
        // A pattern of one component with a leading slash matches a whole name.
        let pattern = Patterns::parse([[b"/", component].concat()]);
        let pattern = pattern.map_err(|_| "it is no well-formed pattern")?;
        found = found.iter().flat_map(|folder| matching(folder, &pattern)).collect();
    }
    found.retain(|path| path.symlink_metadata().is_ok());
    Ok(found)
}

fn matching(folder: &Path, pattern: &Patterns) -> Vec<PathBuf> {
    let listed = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let entries = fs::read_dir(listed).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name());
    let mut names: Vec<_> =
        names.filter(|name| pattern.matches(&[b"/", name.as_bytes()].concat())).collect();
    names.sort();
    names.into_iter().map(|name| folder.join(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_expand_to_what_is_there() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a.txt", "b.txt", "sub/c.txt", "sub/.hidden", "odd[name"] {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let check = |glob: &str, expected: &[&str]| {
            let glob = folder.path().join(glob);
            let found = expand(glob.as_os_str().as_bytes()).unwrap();
            let expected: Vec<_> = expected.iter().map(|name| folder.path().join(name)).collect();
            assert_eq!(found, expected, "{glob:?}");
        };
        check("*.txt", &["a.txt", "b.txt"]);
        check("*/?.txt", &["sub/c.txt"]);
        check("sub/*", &["sub/.hidden", "sub/c.txt"]);
        check("a.txt", &["a.txt"]);
        check("missing", &[]);
        check("missing/*", &[]);
        check("odd\\[name", &["odd[name"]);
        assert!(expand(b"/a[").is_err());
    }

    #[test]
    fn raw_lists_end_every_path_with_a_zero() {
        let check = |content: &[u8], expected: Option<&[&str]>| {
            let found = split_raw(content, Path::new("list")).ok();
            let expected = expected.map(|list| list.iter().map(PathBuf::from).collect());
            assert_eq!(found, expected, "{content:?}");
        };
        check(b"", Some(&[]));
        check(b"a\0b\nc\0", Some(&["a", "b\nc"]));
        check(b"a\0b", None);
        check(b"a\0\0", None);
        check(b"\0", None);
    }
}
