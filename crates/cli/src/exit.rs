//! Exit codes: a documented promise that scripts build on.

use std::process::ExitCode;

use muster_model::Class;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// All that was asked for is done.
    Done = 0,
    /// It failed: not found, a transient fault, a bug.
    Failed = 1,
    /// The command line, or a file it names, is wrong.
    Usage = 2,
    /// Stored data is damaged.
    Damaged = 3,
    /// Refused: wrong password, locked, a target that is not empty.
    Refused = 4,
    /// Done in part; what was left out is listed.
    Partial = 5,
    /// A gate is shut: a proof is stale or was never made.
    Unproven = 6,
    /// A gate cannot tell.
    Unknown = 7,
    /// Stopped on request (128 + SIGINT, as shells say it).
    Interrupted = 130,
}

/// The codes as `muster --help` explains them.
pub(crate) const HELP: &str = "Exit codes:
  0    done
  1    failed, or an objective was missed (also: not found, a transient fault, a bug)
  2    wrong usage, or an invalid plan
  3    data damaged, evidence tampered
  4    refused: wrong password, locked, a target that is not empty
  5    done in part; what was left out is listed
  6    gate: a proof is stale or was never made
  7    gate: it could not be told
  130  interrupted";

impl From<Class> for Exit {
    fn from(class: Class) -> Self {
        match class {
            Class::Input => Self::Usage,
            Class::NotFound | Class::Transient | Class::Bug => Self::Failed,
            Class::Corrupt => Self::Damaged,
            Class::Denied | Class::Conflict | Class::Fenced => Self::Refused,
            Class::Interrupted => Self::Interrupted,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_the_promised_ones() {
        let codes = [
            (Exit::Done, 0),
            (Exit::Failed, 1),
            (Exit::Usage, 2),
            (Exit::Damaged, 3),
            (Exit::Refused, 4),
            (Exit::Partial, 5),
            (Exit::Unproven, 6),
            (Exit::Unknown, 7),
            (Exit::Interrupted, 130),
        ];
        for (exit, code) in codes {
            assert_eq!(exit as u8, code);
            assert!(HELP.contains(&format!("\n  {code:<4} ")), "{code}");
        }
    }

    #[test]
    fn every_class_has_its_code() {
        let check = |class: Class, code: u8| assert_eq!(Exit::from(class) as u8, code, "{class:?}");
        check(Class::Input, 2);
        check(Class::NotFound, 1);
        check(Class::Conflict, 4);
        check(Class::Fenced, 4);
        check(Class::Denied, 4);
        check(Class::Transient, 1);
        check(Class::Corrupt, 3);
        check(Class::Interrupted, 130);
        check(Class::Bug, 1);
    }
}
