//! The environment of a child: cleared, but for a few names.
//!
//! What Muster was started with (passwords above all) is no business of what it starts.

use std::{env, ffi::OsString, fs, io, path::Path};

use super::identity::{ChildIdentity, MARK_VARIABLE};

/// What a child's `PATH` is when Muster has none.
const PATH_DEFAULT: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The variables that are handed on, and all that begin with `LC_`.
const HANDED_ON: [&str; 4] = ["PATH", "HOME", "LANG", "TZ"];
/// The variable that names the temporary folder.
const TEMPORARY: &str = "TMPDIR";

/// The variables of a child: the few that are handed on, its temporary folder, and `given`,
/// which override them.
pub(crate) fn child_environment(
    temporary: &Path,
    given: &[(String, String)],
) -> Vec<(OsString, OsString)> {
    let handed_on = env::vars_os().filter(|(name, _)| {
        name.to_str().is_some_and(|name| HANDED_ON.contains(&name) || name.starts_with("LC_"))
    });
    let mut variables: Vec<(OsString, OsString)> = handed_on.collect();
    if !variables.iter().any(|(name, _)| name == "PATH") {
        variables.push(("PATH".into(), PATH_DEFAULT.into()));
    }
    variables.push((TEMPORARY.into(), temporary.into()));
    variables.extend(given.iter().map(|(name, value)| (name.into(), value.into())));
    variables
}

/// Names of variables that a child was really started with, beside those that every child gets
/// and those `given` to it: none, or something of Muster's own environment leaked. To be asked
/// before the child gets its word, when it still is what was started.
///
/// # Errors
/// Fails when `/proc/PID/environ` (proc(5)) cannot be read.
pub fn foreign_variables(
    child: &ChildIdentity,
    given: &[(String, String)],
) -> io::Result<Vec<String>> {
    Ok(foreign(&fs::read(format!("/proc/{}/environ", child.pid))?, given))
}

fn foreign(environ: &[u8], given: &[(String, String)]) -> Vec<String> {
    let names = environ.split(|byte| *byte == 0).filter(|variable| !variable.is_empty());
    let names = names.map(|variable| {
        let name = variable.split(|byte| *byte == b'=').next().unwrap_or_default();
        String::from_utf8_lossy(name).into_owned()
    });
    let is_known = |name: &String| {
        HANDED_ON.contains(&name.as_str())
            || name.starts_with("LC_")
            || [TEMPORARY, MARK_VARIABLE].contains(&name.as_str())
            || given.iter().any(|(given, _)| given == name)
    };
    names.filter(|name| !is_known(name)).collect()
}

/// The value that a variable has in the end: the last one wins.
pub(super) fn value_of<'a>(
    variables: &'a [(OsString, OsString)],
    wanted: &str,
) -> Option<&'a OsString> {
    variables.iter().rev().find(|(name, _)| name == wanted).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leaks_is_named() {
        let given = [("A".to_owned(), "1".to_owned())];
        let environ =
            b"PATH=/bin\0A=1\0MUSTER_PASSWORD=hush\0LC_ALL=C\0TMPDIR=/t\0MUSTER_CHILD=m\0";
        assert_eq!(foreign(environ, &given), ["MUSTER_PASSWORD"]);
        assert!(foreign(b"", &given).is_empty());
    }

    #[test]
    fn only_a_few_names_are_handed_on() {
        let given = [("TMPDIR".to_owned(), "/other".to_owned()), ("A".to_owned(), "1".to_owned())];
        let variables = child_environment(Path::new("/target"), &given);
        for (name, _) in &variables {
            let name = name.to_str().unwrap();
            let known = HANDED_ON.contains(&name) || ["TMPDIR", "A"].contains(&name);
            assert!(known || name.starts_with("LC_"), "{name}");
        }
        assert_eq!(value_of(&variables, "TMPDIR").unwrap(), "/other");
        assert!(value_of(&variables, "PATH").is_some());
        // Cargo sets this one for every test.
        assert!(value_of(&variables, "CARGO_MANIFEST_DIR").is_none());
    }
}
