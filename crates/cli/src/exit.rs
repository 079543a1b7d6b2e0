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

impl Exit {
    /// The exit code of two things done by one command: that of the worse, as
    /// [`Class::gravity`] weighs failures; what was done in part weighs least of all.
    pub(crate) fn and(self, other: Self) -> Self {
        if other.gravity() > self.gravity() { other } else { self }
    }

    fn gravity(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Partial => 1,
            Self::Unproven => 2,
            Self::Unknown => 3,
            Self::Failed => 4,
            Self::Usage => 5,
            Self::Refused => 6,
            Self::Damaged => 7,
            Self::Interrupted => 8,
        }
    }

    /// The exit code of a command that did a part of what was asked, beside a failure of this
    /// class: what may pass by itself leaves it done in part, for all else somebody must act.
    pub(crate) fn beside(class: Class) -> Self {
        match Self::from(class) {
            Self::Failed => Self::Partial,
            exit => exit,
        }
    }
}

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
    fn the_worst_of_several_decides() {
        let check = |codes: &[Exit], worst: Exit| {
            let forth = codes.iter().copied().fold(Exit::Done, Exit::and);
            let back = codes.iter().rev().copied().fold(Exit::Done, Exit::and);
            assert_eq!((forth, back), (worst, worst), "{codes:?}");
        };
        check(&[], Exit::Done);
        check(&[Exit::Done, Exit::Partial], Exit::Partial);
        check(&[Exit::Failed, Exit::Partial], Exit::Failed);
        check(&[Exit::Refused, Exit::Failed, Exit::Done], Exit::Refused);
        check(&[Exit::Refused, Exit::Damaged, Exit::Failed], Exit::Damaged);
        check(&[Exit::Damaged, Exit::Interrupted], Exit::Interrupted);
        assert_eq!(Exit::beside(Class::Transient), Exit::Partial);
        assert_eq!(Exit::beside(Class::NotFound), Exit::Partial);
        assert_eq!(Exit::beside(Class::Denied), Exit::Refused);
        assert_eq!(Exit::beside(Class::Corrupt), Exit::Damaged);
    }

    #[test]
    fn the_order_of_codes_is_that_of_classes() {
        let classes = [
            Class::Transient,
            Class::NotFound,
            Class::Bug,
            Class::Input,
            Class::Conflict,
            Class::Denied,
            Class::Fenced,
            Class::Corrupt,
            Class::Interrupted,
        ];
        for pair in classes.windows(2) {
            assert!(pair[0].gravity() <= pair[1].gravity(), "{pair:?}");
            let (lighter, graver) = (Exit::from(pair[0]), Exit::from(pair[1]));
            assert_eq!(lighter.and(graver), graver, "{pair:?}");
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
