//! Why a sample is not green, and whose fault that is.

use std::{error::Error, fmt, io, time::Duration};

use rustix::io::Errno;

use crate::text::chain;

/// Why a sample is not green.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The target answered, and not as expected.
    Answer(String),
    /// The target did not answer.
    NoAnswer(String),
    /// The target did not answer in time.
    TimedOut(Duration),
    /// The prober could not ask.
    Prober(String),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answer(text) | Self::NoAnswer(text) => f.write_str(text),
            Self::TimedOut(limit) => write!(f, "no complete answer within {limit:?}"),
            Self::Prober(text) => write!(f, "could not ask: {text}"),
        }
    }
}

impl Trouble {
    /// Judges an error on the way to the target by its causes.
    pub(super) fn of(error: &(dyn Error + 'static)) -> Self {
        let mut cause = Some(error);
        while let Some(error) = cause {
            if error.downcast_ref::<io::Error>().is_some_and(is_of_prober) {
                return Self::Prober(chain(error));
            }
            cause = error.source();
        }
        Self::NoAnswer(chain(error))
    }
}

/// Whether a failure is this machine's own: no descriptors, no memory, no local address or port
/// to ask from, no resolver that answers.
///
/// A name that does not exist is the target's fault, a resolver that cannot be asked the
/// prober's. The standard library tells them apart by the C library's text only.
pub(super) fn is_of_prober(error: &io::Error) -> bool {
    const OWN: [Errno; 5] =
        [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::ADDRNOTAVAIL];
    if let Some(number) = Errno::from_io_error(error) {
        return OWN.contains(&number);
    }
    let text = error.to_string();
    text.starts_with("failed to lookup address information")
        && ["Temporary failure", "Try again", "System error"].iter().any(|own| text.contains(own))
        || error
            .get_ref()
            .is_some_and(|inner| inner.downcast_ref::<io::Error>().is_some_and(is_of_prober))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_fault_it_is() {
        let check = |error: io::Error, of_prober: bool| {
            assert_eq!(is_of_prober(&error), of_prober, "{error}");
        };
        check(Errno::MFILE.into(), true);
        check(Errno::NFILE.into(), true);
        check(Errno::CONNREFUSED.into(), false);
        check(Errno::NETUNREACH.into(), false);
        check(io::Error::other(io::Error::from(Errno::MFILE)), true);
        let lookup =
            |text| io::Error::other(format!("failed to lookup address information: {text}"));
        check(lookup("Temporary failure in name resolution"), true);
        check(lookup("Name or service not known"), false);
    }
}
