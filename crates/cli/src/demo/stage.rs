//! The folder of a demo: two regions, a plan, a secret, the state.
//!
//! Whatever happens, also a panic, dropping the stage removes it, unless it was told to stay.
//! The state stands beside the regions, so it survives the loss of either.

use std::{
    env,
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use super::error::DemoError;

/// The region that is lost.
pub(super) const WEST: &str = "eu-west";

/// The region that stays.
pub(super) const NORTH: &str = "eu-north";

/// The state, where verbs look for it when they are given the plan.
pub(super) const STATE: &str = ".muster";

/// The plan, where verbs look for it.
pub(super) const PLAN: &str = "muster.yaml";

const SECRET: &str = "secret";

const PLAN_TEXT: &str = include_str!("plan.yaml");

/// What only `--keep` keeps.
const INNARDS: [&str; 4] = [WEST, NORTH, STATE, SECRET];

/// Tries to remove a folder into which a process that dies still writes.
const REMOVE_TRIES: usize = 50;

const REMOVE_PAUSE: Duration = Duration::from_millis(20);

/// What becomes of the folder at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// All of it goes.
    Goes,
    /// All of it stays.
    Stays,
}

/// The folder of a demo.
#[derive(Debug)]
pub(super) struct Stage {
    dir: PathBuf,
    fate: Fate,
}

impl Stage {
    /// Makes the folder; one that is there already is left alone, and the next number tried.
    ///
    /// # Errors
    ///
    /// The folder cannot be made.
    pub(super) fn set(wanted: &Path, keep: bool) -> Result<Self, DemoError> {
        let dir = new_folder(wanted)?;
        let fate = if keep { Fate::Stays } else { Fate::Goes };
        Ok(Self { dir, fate })
    }

    /// The folder, as relative or absolute as it was named.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Something in the folder.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The plan's file.
    pub(super) fn plan(&self) -> PathBuf {
        self.path(PLAN)
    }

    /// The state's folder.
    pub(super) fn state(&self) -> PathBuf {
        self.path(STATE)
    }

    /// The database of the service, where it is produced.
    pub(super) fn database(&self) -> PathBuf {
        self.path("eu-west/orders/orders.db")
    }

    /// The uploads of the service, where they are produced.
    pub(super) fn uploads(&self) -> PathBuf {
        self.path("eu-west/orders/uploads")
    }

    /// Where the service is recovered.
    pub(super) fn site(&self) -> PathBuf {
        self.path("eu-north/orders")
    }

    /// Writes the plan and a secret that nobody has seen, and makes the regions.
    ///
    /// # Errors
    ///
    /// Something cannot be written.
    pub(super) fn furnish(&self) -> Result<(), DemoError> {
        for region in ["eu-west/orders", NORTH] {
            let path = self.path(region);
            fs::create_dir_all(&path).map_err(DemoError::folder(path))?;
        }
        let path = self.path(SECRET);
        write_secret(&path).map_err(DemoError::folder(path))?;
        let text = this_program().map(|program| PLAN_TEXT.replace("@MUSTER@", &program));
        let written = text.and_then(|text| fs::write(self.plan(), text));
        written.map_err(DemoError::folder(self.plan()))
    }

    /// Removes a region with all that is in it.
    ///
    /// # Errors
    ///
    /// Something of it stays.
    pub(super) fn lose(&self, region: &str) -> Result<(), DemoError> {
        remove(&self.path(region))
    }

    /// The demo went well: what the newcomer looks at stays.
    ///
    /// # Errors
    ///
    /// Something that should go stays.
    pub(super) fn leave_results(mut self) -> Result<(), DemoError> {
        if self.fate == Fate::Stays {
            return Ok(());
        }
        self.fate = Fate::Stays;
        INNARDS.iter().try_for_each(|name| remove(&self.path(name)))
    }

    /// Removes everything, unless it shall stay.
    ///
    /// # Errors
    ///
    /// Something that should go stays.
    pub(super) fn clear(mut self) -> Result<(), DemoError> {
        match std::mem::replace(&mut self.fate, Fate::Stays) {
            Fate::Stays => Ok(()),
            Fate::Goes => remove(&self.dir),
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if self.fate == Fate::Goes {
            // Somebody panicked; there is nobody to tell more.
            remove(&self.dir).ok();
        }
    }
}

/// This program, as a word of YAML: JSON's strings are such.
fn this_program() -> io::Result<String> {
    let path = env::current_exe()?.into_os_string();
    let path = path.into_string().map_err(|_| io::Error::other("muster's path is not UTF-8"))?;
    serde_json::to_string(&path).map_err(io::Error::from)
}

fn new_folder(wanted: &Path) -> Result<PathBuf, DemoError> {
    if let Some(parent) = wanted.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        fs::create_dir_all(parent).map_err(DemoError::folder(parent))?;
    }
    let mut path = wanted.to_owned();
    for number in 2_u32.. {
        match DirBuilder::new().mode(0o755).create(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let mut name = wanted.as_os_str().to_owned();
                name.push(format!("-{number}"));
                path = name.into();
            }
            made => return made.map(|()| path.clone()).map_err(DemoError::folder(path)),
        }
    }
    let full = io::Error::from(io::ErrorKind::AlreadyExists);
    Err(DemoError::Folder { path, source: full })
}

/// A password of 256 bits that only this user can read.
fn write_secret(path: &Path) -> io::Result<()> {
    let mut bits = [0_u8; 32];
    getrandom::fill(&mut bits).map_err(io::Error::other)?;
    let secret: String = bits.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    writeln!(file, "{secret}")
}

/// Removes a file or a folder; that it is gone already is well.
pub(super) fn remove(path: &Path) -> Result<(), DemoError> {
    for _ in 1..REMOVE_TRIES {
        if remove_once(path).is_ok() {
            return Ok(());
        }
        thread::park_timeout(REMOVE_PAUSE);
    }
    remove_once(path).map_err(|source| DemoError::Remove { path: path.to_owned(), source })
}

fn remove_once(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use muster_model::Severity;

    use super::*;

    #[test]
    fn the_plan_has_no_error_and_the_secret_is_private() {
        let folder = tempfile::tempdir().unwrap();
        let stage = Stage::set(&folder.path().join("demo"), false).unwrap();
        stage.furnish().unwrap();
        let parsed = muster_plan::parse(&fs::read_to_string(stage.plan()).unwrap());
        let errors = parsed.findings.iter().filter(|found| found.severity == Severity::Error);
        assert_eq!(errors.collect::<Vec<_>>(), Vec::<&muster_model::Finding>::new());
        let secret = fs::metadata(stage.path(SECRET)).unwrap();
        assert_eq!((secret.len(), secret.permissions().mode() & 0o777), (65, 0o600));
    }

    #[test]
    fn nothing_that_is_there_is_touched() {
        let folder = tempfile::tempdir().unwrap();
        let wanted = folder.path().join("a/demo");
        let first = Stage::set(&wanted, true).unwrap();
        let second = Stage::set(&wanted, false).unwrap();
        let third = Stage::set(&wanted, false).unwrap();
        assert_eq!(first.dir(), wanted);
        assert_eq!(second.dir(), folder.path().join("a/demo-2"));
        assert_eq!(third.dir(), folder.path().join("a/demo-3"));
        drop((first, second));
        third.clear().unwrap();
        let left: Vec<_> = fs::read_dir(folder.path().join("a")).unwrap().collect();
        assert_eq!(left.len(), 1, "{left:?}");
    }
}
