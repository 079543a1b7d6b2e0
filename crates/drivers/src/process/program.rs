//! Finding a program and a user before anything is started, so that a slip is told as one.

use std::{
    env,
    ffi::OsStr,
    fs::{self, File},
    io::{BufRead as _, BufReader},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use nix::unistd::{Uid, User, geteuid};
use thiserror::Error;

/// Why a program cannot be started at all.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ProgramError {
    /// The argument list is empty.
    #[error("no program is named")]
    NoArgv,
    /// No such file, or none of that name in the directories of `PATH`.
    #[error("there is no program '{0}'")]
    Missing(String),
    /// The file is there and cannot be executed.
    #[error("'{0}' is not executable")]
    NotExecutable(String),
    /// The script's first line names an interpreter that does not exist.
    #[error("'{program}' needs the interpreter '{interpreter}', which does not exist")]
    NoInterpreter {
        /// The script.
        program: String,
        /// What its first line names.
        interpreter: String,
    },
    /// The program is among the files that it shall not see.
    #[error("'{program}' lies in '{path}', which is production's and hidden from drills")]
    Hidden {
        /// The program.
        program: String,
        /// What is hidden.
        path: String,
    },
    /// An argument or variable holds a zero byte.
    #[error("an argument holds a zero byte")]
    ZeroByte,
}

/// Finds the file that a shell in `dir` with this `PATH` would execute.
///
/// # Errors
/// Fails when there is none, and when it could not be executed.
pub(super) fn find(argv: &[String], path: &OsStr, dir: &Path) -> Result<PathBuf, ProgramError> {
    let program = argv.first().filter(|program| !program.is_empty());
    let program = program.ok_or(ProgramError::NoArgv)?;
    if argv.iter().any(|argument| argument.contains('\0')) {
        return Err(ProgramError::ZeroByte);
    }
    let candidates: Vec<PathBuf> = if program.contains('/') {
        vec![dir.join(program)]
    } else {
        env::split_paths(path).map(|folder| dir.join(folder).join(program)).collect()
    };
    let files: Vec<&PathBuf> = candidates.iter().filter(|path| path.is_file()).collect();
    let Some(found) = files.iter().find(|path| is_executable(path)) else {
        let known = files.first().map(|path| ProgramError::NotExecutable(shown(path)));
        return Err(known.unwrap_or_else(|| ProgramError::Missing(program.clone())));
    };
    check_interpreter(found, dir)?;
    Ok((*found).clone())
}

fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|status| status.permissions().mode() & 0o111 != 0)
}

fn check_interpreter(script: &Path, dir: &Path) -> Result<(), ProgramError> {
    let Some(interpreter) = interpreter(script) else { return Ok(()) };
    if dir.join(&interpreter).is_file() {
        return Ok(());
    }
    Err(ProgramError::NoInterpreter { program: shown(script), interpreter })
}

/// What the first line of a script names; nothing when this is no script.
fn interpreter(path: &Path) -> Option<String> {
    use std::io::Read as _;
    let mut line = Vec::new();
    // The kernel reads no more than this of the first line.
    BufReader::new(File::open(path).ok()?.take(256)).read_until(b'\n', &mut line).ok()?;
    let line = String::from_utf8_lossy(line.strip_prefix(b"#!")?).into_owned();
    line.split_ascii_whitespace().next().map(str::to_owned)
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// Why a child cannot run as somebody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UserProblem {
    /// Nobody has this name or number.
    Unknown,
    /// Only root may start processes of others.
    NotRoot,
}

/// As whom a child runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RunAs {
    /// As Muster itself.
    Caller,
    /// As somebody else.
    Other { uid: u32, gid: u32, home: PathBuf },
}

/// Looks a user up, by name or number, and whether Muster may start processes of theirs.
pub(super) fn run_as(user: Option<&str>) -> Result<RunAs, UserProblem> {
    let Some(name) = user else { return Ok(RunAs::Caller) };
    let by_number = || name.parse().ok().and_then(|uid| User::from_uid(Uid::from_raw(uid)).ok()?);
    let user = User::from_name(name).ok().flatten().or_else(by_number);
    let user = user.ok_or(UserProblem::Unknown)?;
    if user.uid == geteuid() {
        return Ok(RunAs::Caller);
    }
    if !geteuid().is_root() {
        return Err(UserProblem::NotRoot);
    }
    Ok(RunAs::Other { uid: user.uid.as_raw(), gid: user.gid.as_raw(), home: user.dir })
}

/// The tool that becomes a user with all their groups, if this machine has it.
///
/// The standard library drops all supplementary groups of a child that gets another user, and
/// can give it none without unsafe code; the tool of util-linux asks the group database. The one
/// of busybox cannot.
pub(super) fn setpriv() -> Option<PathBuf> {
    tool("setpriv")
}

/// A tool of util-linux, wherever the `PATH` of whoever needs it leads.
pub(super) fn tool(name: &str) -> Option<PathBuf> {
    let folders = ["/usr/bin", "/bin", "/usr/local/bin", "/run/current-system/sw/bin"];
    let path = folders.iter().map(|folder| Path::new(folder).join(name));
    path.into_iter().find(|path| {
        is_executable(path)
            && fs::canonicalize(path)
                .is_ok_and(|real| real.file_name() != Some(OsStr::new("busybox")))
    })
}

#[cfg(test)]
mod tests {
    use muster_testkit::Scratch;

    use super::*;

    fn script(scratch: &Scratch, name: &str, text: &str, mode: u32) {
        let path = scratch.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn programs_are_found_as_a_shell_would() {
        let scratch = Scratch::new("programs").unwrap();
        script(&scratch, "good", "#!/bin/sh\n", 0o755);
        script(&scratch, "plain", "#!/bin/sh\n", 0o644);
        script(&scratch, "strange", "#! /no/such/interpreter -x\n", 0o755);
        let find_in = |program: &str, path: &str| {
            find(&[program.to_owned()], OsStr::new(path), scratch.path())
        };
        let here = scratch.path().to_str().unwrap();
        assert_eq!(find_in("good", here).unwrap(), scratch.join("good"));
        assert_eq!(find_in("./good", "").unwrap().canonicalize().unwrap(), scratch.join("good"));
        assert!(find_in("sh", "/usr/bin:/bin").unwrap().ends_with("sh"));
        assert_eq!(find_in("good", "/bin"), Err(ProgramError::Missing("good".to_owned())));
        assert_eq!(find_in("./none", here), Err(ProgramError::Missing("./none".to_owned())));
        assert!(matches!(find_in("plain", here), Err(ProgramError::NotExecutable(_))));
        assert!(matches!(find_in("strange", here), Err(ProgramError::NoInterpreter { .. })));
        assert_eq!(find_in("", here), Err(ProgramError::NoArgv));
        assert_eq!(find_in("a\0b", here), Err(ProgramError::ZeroByte));
    }

    #[test]
    fn users_are_looked_up() {
        assert_eq!(run_as(None), Ok(RunAs::Caller));
        assert_eq!(run_as(Some("nobody-of-this-name")), Err(UserProblem::Unknown));
        assert_eq!(run_as(Some(&geteuid().to_string())), Ok(RunAs::Caller));
    }
}
