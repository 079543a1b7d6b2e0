//! The program that carries SFTP, and what it means when it goes away.
//!
//! It is the system's `ssh`, so that the user's configuration, keys, agent and known hosts hold.
//! It is never asked to ask (`BatchMode`): backups run when nobody is there. It gets a process
//! group of its own, so that Ctrl-C does not take the way from under a lock that is about to be
//! released.

use muster_model::location::Sftp;
use muster_repository::storage::StorageProblem;

use crate::{error::StoreError, options::Options};

/// The words of the command that speaks SFTP on its pipes.
pub(crate) fn command(sftp: &Sftp, options: &Options) -> Result<Vec<String>, StoreError> {
    if let Some(command) = options.get("sftp.command") {
        let words = words(command)
            .filter(|words| !words.is_empty())
            .ok_or_else(|| StoreError::option("sftp.command", "a quote is not closed"))?;
        return Ok(words);
    }
    let mut argv: Vec<String> = ["ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=30"]
        .into_iter()
        .chain(["-o", "ServerAliveInterval=20", "-o", "ServerAliveCountMax=3"])
        .map(str::to_owned)
        .collect();
    if let Some(port) = sftp.port {
        argv.extend(["-p".to_owned(), port.to_string()]);
    }
    if let Some(user) = &sftp.user {
        argv.extend(["-l".to_owned(), user.clone()]);
    }
    if let Some(more) = options.get("sftp.args") {
        let words = words(more);
        argv.extend(words.ok_or_else(|| StoreError::option("sftp.args", "a quote is not closed"))?);
    }
    argv.extend(["-s".to_owned(), "--".to_owned(), sftp.host.clone(), "sftp".to_owned()]);
    Ok(argv)
}

/// Splits a command into words, as a shell would without expanding anything; `None` when a quote
/// is not closed.
fn words(text: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None | Some('"'), '\\') => word.get_or_insert_default().push(chars.next()?),
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    quote.is_none().then_some(words)
}

/// What it means that the program ended, from what it said last.
pub(crate) fn problem_of(said: &str) -> StorageProblem {
    const MEANINGS: [(&str, StorageProblem); 6] = [
        ("Could not resolve hostname", StorageProblem::HostUnknown),
        ("Host key verification failed", StorageProblem::Untrusted),
        ("REMOTE HOST IDENTIFICATION HAS CHANGED", StorageProblem::Untrusted),
        ("Permission denied", StorageProblem::Credentials),
        ("Too many authentication failures", StorageProblem::Credentials),
        ("subsystem request failed", StorageProblem::Denied),
    ];
    let meaning = MEANINGS.iter().find(|(words, _)| said.contains(words));
    meaning.map_or(StorageProblem::Unreachable, |(_, problem)| *problem)
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_model::Location;

    fn check(location: &str, options: &[&str], expected: &str) {
        let Ok(Location::Sftp(sftp)) = Location::parse(location) else { panic!("{location}") };
        let options = Options::parse(options.iter().copied()).unwrap();
        let argv = command(&sftp, &options).unwrap().join(" ");
        assert!(argv.ends_with(expected), "{argv}");
    }

    #[test]
    fn ssh_is_told_what_was_said() {
        check("sftp:me@host:/x", &[], " -l me -s -- host sftp");
        check("sftp://me@host:2222//x", &[], " -p 2222 -l me -s -- host sftp");
        check("sftp:host:/x", &["sftp.args=-i '/my key'"], " -i /my key -s -- host sftp");
        check("sftp:host:/x", &["sftp.command=/bin/server \"a b\""], "/bin/server a b");
    }

    #[test]
    fn words_are_split_as_a_shell_does() {
        let check = |text: &str, expected: &[&str]| {
            assert_eq!(words(text).unwrap(), expected, "{text}");
        };
        check("a  b", &["a", "b"]);
        check("'a b' c\"d e\"", &["a b", "cd e"]);
        check(r#"a\ b "c\"d" ''"#, &["a b", "c\"d", ""]);
        check("", &[]);
        assert_eq!(words("'open"), None);
    }

    #[test]
    fn what_ssh_says_is_understood() {
        let check = |said: &str, problem| assert_eq!(problem_of(said), problem, "{said}");
        check("ssh: Could not resolve hostname x: Name", StorageProblem::HostUnknown);
        check("ssh: connect to host x port 22: Connection refused", StorageProblem::Unreachable);
        check("me@x: Permission denied (publickey).", StorageProblem::Credentials);
        check("Host key verification failed.", StorageProblem::Untrusted);
        check("", StorageProblem::Unreachable);
    }
}
