//! Who runs the engine, where, and what time it is: the one place that asks the system.

use std::{num::NonZeroUsize, sync::OnceLock, thread};

use jiff::tz::TimeZone;
use nix::unistd::{Gid, Uid, User, gethostname};

use crate::format::{key_file::Author, time::Timestamp};

/// How many threads run at once. The system is asked the first time only: it reads several files of
/// the control group for the answer.
pub(crate) fn cores() -> usize {
    static CORES: OnceLock<usize> = OnceLock::new();
    *CORES.get_or_init(|| thread::available_parallelism().map_or(1, NonZeroUsize::get))
}

/// The process's surroundings, as locks, keys and snapshots record them.
#[derive(Debug, Clone)]
pub struct Environment {
    /// The host's name.
    pub hostname: String,
    /// The user's name; empty when the user has none.
    pub username: String,
    /// The user's number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
    /// The process.
    pub pid: u32,
    /// The local time zone, in which times are written.
    pub zone: TimeZone,
}

impl Environment {
    /// Asks the system.
    #[must_use]
    pub fn detect() -> Self {
        let uid = Uid::current();
        let user = User::from_uid(uid).ok().flatten();
        let hostname = gethostname().map(|name| name.to_string_lossy().into_owned());
        Self {
            hostname: hostname.unwrap_or_default(),
            username: user.map(|user| user.name).unwrap_or_default(),
            uid: uid.as_raw(),
            gid: Gid::current().as_raw(),
            pid: std::process::id(),
            zone: TimeZone::system(),
        }
    }

    /// The wall clock's time. For records only: durations are measured with
    /// [`std::time::Instant`].
    #[must_use]
    pub fn now(&self) -> Timestamp {
        let now = jiff::Timestamp::now();
        let seconds = now.as_second();
        // Before 1970 jiff's nanoseconds are negative; Timestamp counts up from the second.
        let nanoseconds = now.subsec_nanosecond();
        let (seconds, nanoseconds) = match u32::try_from(nanoseconds) {
            Ok(nanoseconds) => (seconds, nanoseconds),
            Err(_) => (seconds - 1, (1_000_000_000 + nanoseconds).unsigned_abs()),
        };
        Timestamp::from_unix(seconds, nanoseconds, &self.zone)
    }

    /// The author of a key that is added now.
    #[must_use]
    pub fn author(&self) -> Author {
        Author {
            username: self.username.clone(),
            hostname: self.hostname.clone(),
            created: self.now(),
        }
    }
}
