//! A scratch folder with a repository, and the binary to run on it.

use std::{
    ffi::OsStr,
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::Arc,
    time::Duration,
};

use muster_repository::{
    environment::Environment,
    format::{config::Version, key_file::Cost},
    repository::{InitOptions, Repository},
    storage::{File, FileKind, LocalStorage, Storage as _, memory::MemoryStorage},
};
use muster_testkit::{
    Scratch,
    peers::{self, Peer},
    walker::{Kind, walk},
};
use serde_json::Value;

/// The password of the repository.
pub(crate) const PASSWORD: &str = "correct horse";

/// How long a test waits for what should happen at once.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A scratch folder with an empty repository in `repo` and a small tree in `source`.
pub(crate) struct Sandbox {
    scratch: Scratch,
}

impl Sandbox {
    /// Makes one. The repository's key is cheap to derive, which the command line cannot ask
    /// for, so that tests may run many commands.
    pub(crate) fn new(name: &str) -> Self {
        let sandbox = Self::without_repository(name);
        sandbox.init(Version::V2);
        sandbox
    }

    /// Makes a repository as restic made them before 0.14.
    pub(crate) fn init_version_1(&self) {
        self.init(Version::V1);
    }

    fn init(&self, version: Version) {
        let storage = Arc::new(LocalStorage::new(self.path("repo")));
        let author = Environment::detect().author();
        let options = InitOptions { version, polynomial: None, cost: Cost::FOR_TESTS, author };
        Repository::init(storage, PASSWORD.as_bytes(), options).unwrap();
    }

    /// Makes one without a repository.
    pub(crate) fn without_repository(name: &str) -> Self {
        let sandbox = Self { scratch: Scratch::new(name).unwrap() };
        sandbox.write("source/a.txt", "alpha\n");
        sandbox.write("source/sub/b.txt", "beta\n");
        sandbox
    }

    /// A path in the scratch folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.scratch.join(name)
    }

    /// Writes a file, with the folders on its way.
    pub(crate) fn write(&self, name: &str, content: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// Opens the repository through the library.
    pub(crate) fn open(&self) -> Repository {
        let storage = Arc::new(LocalStorage::new(self.path("repo")));
        Repository::open(storage, PASSWORD.as_bytes(), None).unwrap()
    }

    /// `muster repo ARGUMENTS`, in the scratch folder, for the sandbox's repository.
    pub(crate) fn command<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Command {
        let mut command = self.bare_command(arguments);
        command.env("MUSTER_REPOSITORY", self.path("repo")).env("MUSTER_PASSWORD", PASSWORD);
        command
    }

    /// As [`Sandbox::command`], without a word of where the repository is.
    pub(crate) fn bare_command<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_muster"));
        command.arg("repo").args(arguments).current_dir(self.scratch.path()).stdin(Stdio::null());
        command.env("TZ", "UTC");
        for (name, _) in std::env::vars_os() {
            let shown = name.to_string_lossy();
            if shown.starts_with("MUSTER_") || shown.starts_with("RESTIC_") {
                command.env_remove(&name);
            }
        }
        // What is kept there must not come from another test, nor stay after this one.
        command.env("MUSTER_CACHE_DIR", self.path("cache"));
        command
    }

    /// Runs `muster repo ARGUMENTS`.
    pub(crate) fn run<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Ran {
        run(&mut self.command(arguments))
    }

    /// Starts a backup that waits for more of its standard input, and holds a lock.
    pub(crate) fn waiting_backup(&self) -> Child {
        let mut command = self.command(&["backup", "--stdin"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // Far more than a pipe holds: when it is gone, the backup is reading.
        child.stdin.as_mut().unwrap().write_all(&vec![0; 1 << 20]).unwrap();
        assert!(self.locks() > 0);
        child
    }

    /// restic, ready to work on the sandbox's repository.
    pub(crate) fn restic(&self) -> Option<Peer> {
        let restic = peers::require("restic")?.env("RESTIC_REPOSITORY", self.path("repo"));
        Some(restic.env("RESTIC_PASSWORD", PASSWORD).folder(self.path("")))
    }

    /// What in the repository is not under its final name: halves of files.
    pub(crate) fn leftovers(&self) -> Vec<String> {
        let files = walk(&self.path("repo")).unwrap().entries.into_iter();
        let files = files.filter(|(_, entry)| entry.kind == Kind::File).map(|(path, _)| path);
        let names = files.map(|path| String::from_utf8(path).unwrap());
        names.filter(|name| name.contains("-tmp-")).collect()
    }

    /// The lock files that lie in the repository, complete ones.
    pub(crate) fn locks(&self) -> usize {
        let names = fs::read_dir(self.path("repo/locks")).unwrap();
        names.filter(|name| name.as_ref().unwrap().file_name().len() == 64).count()
    }

    /// Writes a repository that was made in memory into a folder.
    pub(crate) fn store(&self, stored: &MemoryStorage, folder: &str) {
        let folder = LocalStorage::new(self.path(folder));
        folder.prepare().unwrap();
        let kinds = [FileKind::Key, FileKind::Pack, FileKind::Index, FileKind::Snapshot];
        let files = kinds.into_iter().flat_map(|kind| stored.list(kind).unwrap());
        for file in files.map(|listed| listed.file).chain([File::Config]) {
            folder.put(file, &stored.read(file, 1 << 30).unwrap()).unwrap();
        }
    }

    /// The only pack file that holds data (not trees): the one that is damaged in tests. It is
    /// made writable.
    pub(crate) fn data_pack(&self) -> PathBuf {
        use muster_repository::{format::pack::BlobKind, id::PackId, run::Run};
        let repository = self.open().load_index(&Run::new()).unwrap();
        let index = repository.index();
        let is_data =
            |pack: &PackId| index.pack_blobs(pack).iter().any(|blob| blob.kind == BlobKind::Data);
        let pack = index.packs().find(is_data).unwrap();
        let path = self.path("repo").join(File::Pack(pack).to_string());
        make_writable(&path);
        path
    }
}

fn make_writable(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// How a command ended, and what it said.
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs a command to its end.
pub(crate) fn run(command: &mut Command) -> Ran {
    Ran::of(command.output().unwrap())
}

impl Ran {
    /// What a finished command left.
    pub(crate) fn of(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Fails the test unless the command ended with this exit code.
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        let Self { stdout, stderr, .. } = &self;
        assert_eq!(self.code, Some(code), "\nstdout: {stdout}\nstderr: {stderr}");
        self
    }

    /// Fails the test unless standard error holds this text.
    #[track_caller]
    pub(crate) fn tells(self, text: &str) -> Self {
        assert!(self.stderr.contains(text), "'{text}' is missing in: {}", self.stderr);
        self
    }

    /// Fails the test unless standard output holds this text.
    #[track_caller]
    pub(crate) fn shows(self, text: &str) -> Self {
        assert!(self.stdout.contains(text), "'{text}' is missing in: {}", self.stdout);
        self
    }

    /// Standard output as one JSON value.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        parse(&self.stdout)
    }

    /// The last line of standard output as JSON.
    #[track_caller]
    pub(crate) fn last_json(&self) -> Value {
        parse(self.stdout.lines().last().unwrap_or_default())
    }

    /// The `error` object on standard error.
    #[track_caller]
    pub(crate) fn error(&self) -> Value {
        // What takes long tells how far it is on standard error, too.
        let lines = self.stderr.lines().filter(|line| !line.contains(r#""message_type":"status""#));
        parse(&lines.collect::<Vec<_>>().join("\n"))["error"].clone()
    }
}

#[track_caller]
fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error} in: {text}"))
}
