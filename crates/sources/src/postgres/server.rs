//! How a server is started on restored data, apart from the world.
//!
//! This module writes a configuration and says what to run; who runs it is somebody else. The
//! configuration is whole and its own, kept outside the data directory, so that nothing of the
//! original's can take effect: no archiving, no replication, no subscriptions, no recovery
//! commands, no preloaded libraries (some of which start work by themselves). `ALTER SYSTEM`'s
//! file, which a server reads wherever its configuration is, is put aside.
//!
//! # Who may connect
//!
//! Anybody on this host, as any role, without a password: the server listens on the loopback
//! address only and lives as long as the drill, and a drill must work without the original's
//! passwords. Where other people have accounts on the host, they could read the data meanwhile;
//! run drills on a host of their own then.

use std::{
    collections::BTreeMap,
    fs,
    io::ErrorKind,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use muster_repository::run::Run;

use super::{
    PostgresError, PostgresSource,
    cluster::{Cluster, carried},
    connection::Target,
    pause::pause,
    programs::Programs,
    restore::{beside, described, own, private},
    run_as::{self, RunAs},
};

/// How often a server that starts is asked whether it is ready.
const READY_TICK: Duration = Duration::from_millis(100);

/// How long one such question may take.
const READY_CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// The longest folder of a socket that fits into an address, in bytes: 107 for the whole path on
/// Linux, less `/.s.PGSQL.65535.lock`.
const SOCKET_FOLDER_BYTES_MAX: usize = 87;

/// Where the original's own additions to its configuration are kept, for people.
pub(super) const ASIDE: &str = "postgresql.auto.conf.original";

/// Files by which a server takes itself for a standby, or restores from an archive.
const SIGNALS: &[&str] = &["standby.signal", "recovery.signal"];

/// A server that can be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// The environment; nothing else is needed.
    pub env: BTreeMap<String, String>,
    /// Who shall run it; `None` for the user of this process.
    pub user: Option<RunAs>,
    /// The data directory.
    pub data_dir: PathBuf,
    /// Where it will answer, as the role and in the database of the original's URL.
    pub url: String,
    /// Stop it by this signal, which lets it end in order without waiting for sessions.
    pub stop_signal: &'static str,
}

/// Prepares a restored data directory for a server that listens at `127.0.0.1:port`, and says how
/// to start it. `user` is as for [`super::restore_into`].
///
/// # Errors
/// Fails when the folder was not restored by [`super::restore_into`], no programs of its version
/// are installed, no user can run it, or a file cannot be written.
pub fn prepare(data: &Path, port: u16, user: Option<&str>) -> Result<Launch, PostgresError> {
    prepare_with(&Programs::find(described(data)?.major)?, data, port, user)
}

/// As [`prepare`], with programs that were found before.
///
/// # Errors
/// As [`prepare`].
pub fn prepare_with(
    programs: &Programs,
    data: &Path,
    port: u16,
    user: Option<&str>,
) -> Result<Launch, PostgresError> {
    let data = std::path::absolute(data).map_err(PostgresError::file("find", data))?;
    let cluster = described(&data)?;
    if programs.major != cluster.major {
        return Err(PostgresError::Version(format!("{} on {}", programs.major, cluster.version)));
    }
    let user = run_as::choose(user, cluster.owner.as_deref())?;
    run_as::may_reach(user.as_ref(), &data)?;
    put_aside(&data)?;
    launch(&data, port, &cluster, programs, user)
}

/// Where a server answers that [`prepare`] prepared earlier and that runs, maybe of another
/// process's making.
///
/// # Errors
/// Fails when the folder was not restored by [`super::restore_into`], or was never prepared.
pub fn prepared_url(data: &Path) -> Result<String, PostgresError> {
    let cluster = described(data)?;
    let config = beside(data, "server").join("postgresql.conf");
    let text = fs::read_to_string(&config).map_err(PostgresError::file("read", &config))?;
    let port = text.lines().find_map(|line| line.strip_prefix("port = ")?.parse().ok());
    let no_port = || PostgresError::file("read the port in", &config)(ErrorKind::NotFound.into());
    Ok(url(&cluster.role, port.ok_or_else(no_port)?, &cluster.database))
}

/// Writes the configuration of a server that runs on `data`.
pub(super) fn launch(
    data: &Path,
    port: u16,
    cluster: &Cluster,
    programs: &Programs,
    user: Option<RunAs>,
) -> Result<Launch, PostgresError> {
    let server = beside(data, "server");
    let [config, hba, ident] =
        ["postgresql.conf", "pg_hba.conf", "pg_ident.conf"].map(|name| server.join(name));
    write(&config, &configuration(&server, port, cluster, &hba, &ident))?;
    write(&hba, ACCESS)?;
    write(&ident, "")?;
    own(&server, user.as_ref())?;
    let argv = vec![
        programs.program("postgres").display().to_string(),
        "-D".to_owned(),
        data.display().to_string(),
        "-c".to_owned(),
        format!("config_file={}", config.display()),
    ];
    Ok(Launch {
        argv,
        env: BTreeMap::from([("LC_ALL".to_owned(), "C".to_owned())]),
        user,
        data_dir: data.to_owned(),
        url: url(&cluster.role, port, &cluster.database),
        stop_signal: "SIGINT",
    })
}

const ACCESS: &str = "\
# Written by Muster: an isolated server for whoever is on this host.
local all all trust
host all all 127.0.0.1/32 trust
";

fn configuration(server: &Path, port: u16, cluster: &Cluster, hba: &Path, ident: &Path) -> String {
    let socket_folder = server.display().to_string();
    let sockets = match socket_folder.len() <= SOCKET_FOLDER_BYTES_MAX {
        true => socket_folder,
        // Without one the server is reached all the same.
        false => String::new(),
    };
    let quoted = |path: &str| path.replace('\\', "\\\\").replace('\'', "''");
    format!(
        "# Written by Muster. Nothing of the original's configuration is read but what is below.\n\
         listen_addresses = '127.0.0.1'\n\
         port = {port}\n\
         unix_socket_directories = '{}'\n\
         unix_socket_permissions = 0700\n\
         hba_file = '{}'\n\
         ident_file = '{}'\n\
         ssl = off\n\
         archive_mode = off\n\
         synchronous_standby_names = ''\n\
         max_logical_replication_workers = 0\n\
         shared_preload_libraries = ''\n\
         hot_standby = off\n\
         logging_collector = off\n\
         log_destination = 'stderr'\n\
         cluster_name = 'muster'\n\
         \n# From the original.\n{}",
        quoted(&sockets),
        quoted(&hba.display().to_string()),
        quoted(&ident.display().to_string()),
        carried(cluster),
    )
}

/// Puts aside what would make the server read settings of the original, or follow it.
fn put_aside(data: &Path) -> Result<(), PostgresError> {
    let auto = data.join("postgresql.auto.conf");
    let aside = beside(data, "server").join(ASIDE);
    // A second call must not put aside what the restored server itself was told.
    if auto.exists() && !aside.exists() {
        fs::copy(&auto, &aside).map_err(PostgresError::file("put aside", &auto))?;
        private_file(&aside)?;
        fs::write(&auto, "").map_err(PostgresError::file("empty", &auto))?;
    }
    for name in SIGNALS {
        let path = data.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(PostgresError::file("remove", path)(error));
            }
            _ => {}
        }
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<(), PostgresError> {
    fs::write(path, text).map_err(PostgresError::file("write", path))?;
    private_file(path)
}

fn private_file(path: &Path) -> Result<(), PostgresError> {
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))
        .map_err(PostgresError::file("close to others", path))
}

/// Makes `data`'s folder of configuration.
pub(super) fn make_server_folder(data: &Path) -> Result<PathBuf, PostgresError> {
    let server = beside(data, "server");
    fs::create_dir_all(&server).map_err(PostgresError::file("make", &server))?;
    private(&server)?;
    Ok(server)
}

fn url(role: &str, port: u16, database: &str) -> String {
    format!("postgresql://{}@127.0.0.1:{port}/{}", encoded(role), encoded(database))
}

/// A name as it is written in a URL.
fn encoded(name: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let encode = |byte: u8| match is_plain(byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    name.bytes().map(encode).collect()
}

/// Waits until a server accepts connections and has finished its recovery.
///
/// # Errors
/// Fails after `timeout`, with what the last attempt said; and when the run is cancelled.
pub fn ready(url: &str, timeout: Duration, run: &Run) -> Result<(), PostgresError> {
    let mut target = Target::parse(&PostgresSource::new(url))?;
    target.config.connect_timeout(READY_CONNECT_TIMEOUT);
    let begun = Instant::now();
    loop {
        run.cancel.check()?;
        let last = match is_ready(&target) {
            Ok(true) => return Ok(()),
            Ok(false) => "it was still in recovery".to_owned(),
            // No patience will help.
            Err(error @ PostgresError::Denied { .. }) => return Err(error),
            Err(error) => super::error::chain(&error),
        };
        if begun.elapsed() >= timeout {
            return Err(PostgresError::NotReady { seconds: timeout.as_secs(), last });
        }
        pause(READY_TICK);
    }
}

fn is_ready(target: &Target) -> Result<bool, PostgresError> {
    let mut session = target.connect()?;
    let row = session
        .client()
        .query_one("select not pg_is_in_recovery()", &[])
        .map_err(PostgresError::statement("ask whether it is in recovery"))?;
    Ok(row.get(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_survive_a_url() {
        let source = PostgresSource::new(url("a@b:c", 5433, "my db/1"));
        let target = Target::parse(&source).unwrap();
        assert_eq!((target.user(), target.database()), ("a@b:c", "my db/1"));
        assert_eq!(target.place(), "127.0.0.1:5433");
    }
}
