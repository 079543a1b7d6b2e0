//! Where passwords come from: a file, a command, the environment, or a prompt.
//!
//! Never from an argument, which every user of the machine can read. A password is bytes, kept
//! in [`Zeroizing`]. Files and output of commands are read as restic reads them, so that the
//! same file opens the same repository: a byte order mark is heeded, white space around the
//! password is dropped.

use std::{
    fs,
    io::{self, IsTerminal},
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use zeroize::Zeroizing;

use crate::{
    error::{Failure, Problem},
    location::variable_set,
};

/// A password's bytes, overwritten when dropped.
pub(crate) type Password = Zeroizing<Vec<u8>>;

/// Where to look for one password.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sources<'a> {
    /// The file that a flag named.
    pub(crate) file: Option<&'a PathBuf>,
    /// The command that a flag named.
    pub(crate) command: Option<&'a str>,
    /// Whether the password is empty, and meant to be.
    pub(crate) empty: bool,
    /// The flag that says so.
    pub(crate) empty_flag: &'static str,
    /// Environment variables, most important first. `…_FILE` and `…_COMMAND` beside each name
    /// a file and a command.
    pub(crate) variables: &'static [&'static str],
    /// Whose password it is, for prompts and errors.
    pub(crate) whose: &'static str,
    /// The flags to name when there is no password.
    pub(crate) flags: &'static str,
}

/// A password, and whether somebody typed it (and may want to try again).
#[derive(Debug)]
pub(crate) struct Found {
    /// The password.
    pub(crate) password: Password,
    /// Whether it was typed at a prompt.
    pub(crate) typed: bool,
}

impl Sources<'_> {
    /// Finds the password of something that exists.
    pub(crate) fn find(&self) -> Result<Found, Failure> {
        match self.without_asking()? {
            Some(password) => Ok(Found { password, typed: false }),
            None => Ok(Found { password: self.ask("enter the password of")?, typed: true }),
        }
    }

    /// Finds a new password; typed, it is asked for twice.
    pub(crate) fn find_new(&self) -> Result<Password, Failure> {
        if let Some(password) = self.without_asking()? {
            return Ok(password);
        }
        let first = self.ask("enter a new password for")?;
        let second = self.ask("enter it again for")?;
        match first == second {
            true => Ok(first),
            false => Err(Failure::usage("use these passwords: they are not the same")),
        }
    }

    /// Finds a password without a prompt; `None` when none was given.
    pub(crate) fn without_asking(&self) -> Result<Option<Password>, Failure> {
        if self.empty {
            return Ok(Some(Password::default()));
        }
        let password = match (self.file, self.command) {
            (Some(file), _) => Some(from_file(file)?),
            (None, Some(command)) => Some(from_command(command)?),
            (None, None) => self.in_environment()?,
        };
        match password {
            Some(password) if password.is_empty() => Err(self.refuse_empty()),
            password => Ok(password),
        }
    }

    fn in_environment(&self) -> Result<Option<Password>, Failure> {
        for variable in self.variables {
            if let Some(command) = variable_set(&format!("{variable}_COMMAND")) {
                return from_command(&command.to_string_lossy()).map(Some);
            }
            if let Some(file) = variable_set(&format!("{variable}_FILE")) {
                return from_file(Path::new(&file)).map(Some);
            }
            if let Some(password) = variable_set(variable) {
                return Ok(Some(Zeroizing::new(password.into_vec())));
            }
        }
        Ok(None)
    }

    fn ask(&self, what: &str) -> Result<Password, Failure> {
        // rpassword talks to the terminal itself; without one there is nobody to ask.
        if !io::stdin().is_terminal() && !io::stderr().is_terminal() {
            return Err(self.nobody_to_ask());
        }
        let prompt = format!("{what} {}: ", self.whose);
        let typed = rpassword::prompt_password(prompt).map_err(|error| match error.kind() {
            io::ErrorKind::Interrupted => {
                Failure::new(Problem::Interrupted, "finish: it was interrupted")
            }
            _ => self.nobody_to_ask().caused_by(&error),
        })?;
        let typed = Zeroizing::new(typed.into_bytes());
        match typed.is_empty() {
            true => Err(self.refuse_empty()),
            false => Ok(typed),
        }
    }

    fn nobody_to_ask(&self) -> Failure {
        let message = format!("get the password of {}: none was given", self.whose);
        let variables = self.variables.join(" or ");
        Failure::new(Problem::PasswordMissing, message)
            .help(format!("use {}, or the variable {variables}", self.flags))
    }

    fn refuse_empty(&self) -> Failure {
        let message = format!("use an empty password for {}", self.whose);
        Failure::new(Problem::PasswordEmpty, message)
            .help(format!("if it is meant to be empty, say so with {}", self.empty_flag))
    }
}

fn from_file(path: &Path) -> Result<Password, Failure> {
    let content = fs::read(path).map_err(|error| {
        let message = format!("read the password file {}", path.display());
        Failure::new(Problem::PasswordFile, message)
            .caused_by(&error)
            .help("check the path, and that this user may read it")
    })?;
    Ok(trimmed(&decoded(Zeroizing::new(content))))
}

fn from_command(command: &str) -> Result<Password, Failure> {
    let failure = |problem: &str| {
        let message = format!("get the password from the command '{command}': {problem}");
        Failure::new(Problem::PasswordCommand, message).help(
            "run it by hand: it must print the password, and nothing else, and end with 0; it runs \
             without a shell",
        )
    };
    let words = split_words(command).map_err(failure)?;
    let (program, arguments) = words.split_first().ok_or_else(|| failure("it is empty"))?;
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| failure("it cannot be started").caused_by(&error))?;
    let password = Zeroizing::new(output.stdout);
    match output.status.success() {
        true => Ok(trimmed(&password)),
        false => Err(failure(&format!("it failed ({})", output.status))),
    }
}

/// Text without its byte order mark, as UTF-8.
fn decoded(content: Password) -> Password {
    let utf16 = |bytes: &[u8], unit: fn([u8; 2]) -> u16| {
        let units = bytes.chunks_exact(2).map(|pair| unit([pair[0], pair[1]]));
        let units: Zeroizing<Vec<u16>> = Zeroizing::new(units.collect());
        Zeroizing::new(String::from_utf16_lossy(&units).into_bytes())
    };
    match content.as_slice() {
        [0xef, 0xbb, 0xbf, text @ ..] => Zeroizing::new(text.to_vec()),
        [0xfe, 0xff, text @ ..] => utf16(text, u16::from_be_bytes),
        [0xff, 0xfe, text @ ..] => utf16(text, u16::from_le_bytes),
        _ => content,
    }
}

/// Bytes without white space around them; Unicode's where they are text.
fn trimmed(content: &[u8]) -> Password {
    let bytes = match std::str::from_utf8(content) {
        Ok(text) => text.trim().as_bytes(),
        Err(_) => content.trim_ascii(),
    };
    Zeroizing::new(bytes.to_vec())
}

/// Splits a command into words as a POSIX shell does: white space separates, quotes and
/// backslashes protect. Nothing is expanded.
fn split_words(command: &str) -> Result<Vec<String>, &'static str> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut rest = command.chars();
    while let Some(next) = rest.next() {
        match next {
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match rest.next().ok_or("a single quote is not closed")? {
                        '\'' => break,
                        other => word.push(other),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match rest.next().ok_or("a double quote is not closed")? {
                        '"' => break,
                        '\\' => match rest.next().ok_or("a double quote is not closed")? {
                            protected @ ('"' | '\\' | '$' | '`') => word.push(protected),
                            other => word.extend(['\\', other]),
                        },
                        other => word.push(other),
                    }
                }
            }
            '\\' => {
                let protected = rest.next().ok_or("it ends in a backslash")?;
                word.get_or_insert_default().push(protected);
            }
            space if space.is_whitespace() => words.extend(word.take()),
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_split_as_by_a_shell() {
        let check = |command: &str, expected: &[&str]| {
            assert_eq!(split_words(command).unwrap(), expected, "{command}");
        };
        check("pass show backup", &["pass", "show", "backup"]);
        check("  a\t b\n", &["a", "b"]);
        check(r#"a 'b c' "d e" f\ g"#, &["a", "b c", "d e", "f g"]);
        check(r#"a"b"'c'd"#, &["abcd"]);
        check(r#""a\"b\n" '' "$x""#, &["a\"b\\n", "", "$x"]);
        check("", &[]);
        for unclosed in ["a 'b", "a \"b", "a\\"] {
            assert!(split_words(unclosed).is_err(), "{unclosed}");
        }
    }

    #[test]
    fn files_are_read_as_restic_reads_them() {
        let check = |content: &[u8], expected: &[u8]| {
            let password = trimmed(&decoded(Zeroizing::new(content.to_vec())));
            assert_eq!(password.as_slice(), expected, "{content:?}");
        };
        check(b"secret\n", b"secret");
        check(b"secret\r\n", b"secret");
        check(b" two words \n", b"two words");
        check(b"\xef\xbb\xbfsecret\n", b"secret");
        check(b"\xff\xfes\0e\0\n\0", b"se");
        check(b"\xfe\xff\0s\0e\0\n", b"se");
        check("geheim\u{a0}\u{2003}\n".as_bytes(), b"geheim");
        check(b"\xff\x01\x02\n", b"\xff\x01\x02");
    }

    #[test]
    fn a_failing_command_gives_no_password() {
        assert_eq!(from_command("printf 'se cret\\n'").unwrap().as_slice(), b"se cret");
        for command in ["false", "/does/not/exist", "", "sh -c 'echo half; exit 3'"] {
            assert_eq!(from_command(command).unwrap_err().code, "password-command", "{command}");
        }
    }
}
