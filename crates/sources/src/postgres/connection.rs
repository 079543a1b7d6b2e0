//! How a server is reached: its URL, sessions for statements, and stopping what takes too long.
//!
//! A URL means what it means to `psql`. Two words of it that the driver does not know are taken
//! out first and heeded here: `sslmode=verify-full` (or `verify-ca`) and `sslrootcert=FILE`.
//! With `sslmode=require` the connection is encrypted and the server's certificate is not
//! verified, as in libpq; where the password is checked by SCRAM, the driver binds it to the
//! certificate, so that somebody in the middle gains nothing.

use std::{fmt, path::PathBuf, sync::mpsc, thread, time::Duration};

use muster_repository::run::Run;
use postgres::{
    CancelToken, Client, Config,
    config::{Host, SslMode},
};
use tokio_postgres_rustls::MakeRustlsConnect;
use zeroize::Zeroizing;

use super::{PostgresError, error, tls};

/// How long a connection may take to come about, unless the URL says otherwise.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection over which nothing comes is asked after this time whether it still is one, and then
/// in this interval: without that, a host that vanished would be waited for for hours.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// How often it is looked whether a running statement shall be cancelled.
const CANCEL_TICK: Duration = Duration::from_millis(100);

/// A server, and who we are there.
#[derive(Clone)]
pub struct PostgresSource {
    /// `postgresql://USER@HOST:PORT/DATABASE`, or words as `host=/run/postgresql user=ana`.
    pub url: String,
    /// The password, unless the URL holds it or none is needed.
    pub password: Option<Zeroizing<String>>,
}

impl PostgresSource {
    /// A server that asks for no password, or whose URL holds it.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), password: None }
    }

    /// Where the server answers: hosts and ports. A host that begins with `/` is the folder of a
    /// socket.
    ///
    /// # Errors
    /// Fails when the URL cannot be understood.
    pub fn endpoints(&self) -> Result<Vec<(String, u16)>, PostgresError> {
        let config = Target::parse(self)?.config;
        let ports = config.get_ports();
        let port = |index: usize| ports.get(index).or(ports.first()).copied().unwrap_or(5432);
        let host = |(index, host): (usize, &Host)| match host {
            Host::Tcp(name) => (name.clone(), port(index)),
            Host::Unix(folder) => (folder.display().to_string(), port(index)),
        };
        Ok(config.get_hosts().iter().enumerate().map(host).collect())
    }

    /// The folder of the server's data, when it tells and stands on this machine.
    #[must_use]
    pub fn data_directory(&self) -> Option<PathBuf> {
        let mut session = Target::parse(self).ok()?.connect().ok()?;
        let row = session.client().query_one("show data_directory", &[]).ok()?;
        let folder = PathBuf::from(row.try_get::<_, String>(0).ok()?);
        folder.is_dir().then_some(folder)
    }
}

impl fmt::Debug for PostgresSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The URL may hold a password.
        f.debug_struct("PostgresSource").finish_non_exhaustive()
    }
}

/// A source whose URL was understood.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) config: Config,
    /// Set when the server's certificate shall be verified.
    pub(super) roots: Option<PathBuf>,
}

impl Target {
    pub(super) fn parse(source: &PostgresSource) -> Result<Self, PostgresError> {
        let (url, tls) = take_out_tls_words(&source.url)?;
        // The driver's error may quote parts of the URL, which may hold a password.
        let mut config: Config = url
            .parse()
            .map_err(|_| PostgresError::Url("it is not one that PostgreSQL knows".to_owned()))?;
        if let Some(mode) = tls.mode {
            config.ssl_mode(mode);
        }
        if config.get_hosts().is_empty() {
            config.host("localhost");
        }
        if config.get_user().is_none() {
            let user = nix::unistd::User::from_uid(nix::unistd::Uid::current());
            let user = user.ok().flatten().map(|user| user.name);
            let user = user.ok_or_else(|| PostgresError::Url("it names no user".to_owned()))?;
            config.user(&user);
        }
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT_TIMEOUT);
        }
        if let Some(password) = &source.password {
            config.password(password.as_bytes());
        }
        config.application_name("muster");
        config.keepalives_idle(KEEPALIVE_IDLE);
        config.keepalives_interval(KEEPALIVE_INTERVAL);
        config.keepalives_retries(3);
        Ok(Self { config, roots: tls.roots })
    }

    pub(super) fn user(&self) -> &str {
        self.config.get_user().unwrap_or_default()
    }

    pub(super) fn database(&self) -> &str {
        self.config.get_dbname().unwrap_or_else(|| self.user())
    }

    /// The same server, another database.
    pub(super) fn in_database(&self, name: &str) -> Self {
        let mut target = self.clone();
        target.config.dbname(name);
        target
    }

    /// Host and port for messages.
    pub(super) fn place(&self) -> String {
        let port = self.config.get_ports().first().copied().unwrap_or(5432);
        match self.config.get_hosts().first() {
            Some(Host::Tcp(host)) => format!("{host}:{port}"),
            Some(Host::Unix(path)) => format!("{}:{port}", path.display()),
            None => format!("localhost:{port}"),
        }
    }

    pub(super) fn connect(&self) -> Result<Session, PostgresError> {
        let tls = tls::connector(self.roots.as_deref())?;
        let client =
            self.config.connect(tls.clone()).map_err(|error| self.not_connected(&error))?;
        let cancel = client.cancel_token();
        Ok(Session { client, cancel, tls })
    }

    fn not_connected(&self, error: &postgres::Error) -> PostgresError {
        match error.as_db_error() {
            Some(db) if error::is_denied(db.code().code()) => PostgresError::Denied {
                operation: "connect to the server",
                message: db.message().to_owned(),
            },
            Some(db) => self.unreachable(db.message()),
            None => {
                let text = error::chain(error);
                match text.contains("password missing") {
                    true => PostgresError::Denied {
                        operation: "connect to the server",
                        message: "it asks for a password, and none was given".to_owned(),
                    },
                    false => self.unreachable(&text),
                }
            }
        }
    }

    pub(super) fn unreachable(&self, why: &str) -> PostgresError {
        PostgresError::Connect {
            place: self.place(),
            source: std::io::Error::other(why.to_owned()),
        }
    }
}

/// What the URL says about TLS that the driver does not know.
#[derive(Default)]
struct TlsWords {
    mode: Option<SslMode>,
    roots: Option<PathBuf>,
}

fn take_out_tls_words(url: &str) -> Result<(String, TlsWords), PostgresError> {
    let mut words = TlsWords::default();
    let mut verify = false;
    let mut is_known = |word: &str| match word.split_once('=') {
        Some(("sslmode", "verify-full" | "verify-ca")) => {
            (words.mode, verify) = (Some(SslMode::Require), true);
            false
        }
        Some(("sslrootcert", file)) => {
            words.roots = Some(PathBuf::from(file));
            false
        }
        _ => true,
    };
    let rest = match (url.contains("://"), url.split_once('?')) {
        (true, Some((url, query))) => {
            let query: Vec<_> = query.split('&').filter(|word| is_known(word)).collect();
            let mark = if query.is_empty() { "" } else { "?" };
            format!("{url}{mark}{}", query.join("&"))
        }
        (true, None) => url.to_owned(),
        (false, _) => url.split(' ').filter(|word| is_known(word)).collect::<Vec<_>>().join(" "),
    };
    match (verify, &words.roots) {
        (true, None) => Err(PostgresError::Url(
            "to verify the server's certificate, 'sslrootcert=FILE' must name who signed it"
                .to_owned(),
        )),
        _ => Ok((rest, words)),
    }
}

/// A connection for statements.
pub(super) struct Session {
    client: Client,
    cancel: CancelToken,
    tls: MakeRustlsConnect,
}

impl Session {
    /// The connection, for statements that are short.
    pub(super) fn client(&mut self) -> &mut Client {
        &mut self.client
    }

    /// Runs a statement that may take long; when the run is cancelled, so is the statement.
    pub(super) fn watched<T>(
        &mut self,
        run: &Run,
        operation: &'static str,
        work: impl FnOnce(&mut Client) -> Result<T, postgres::Error>,
    ) -> Result<T, PostgresError> {
        run.cancel.check()?;
        let (cancel, tls, client) = (self.cancel.clone(), self.tls.clone(), &mut self.client);
        let result = thread::scope(|scope| {
            let (ended, end) = mpsc::channel::<()>();
            scope.spawn(move || {
                while end.recv_timeout(CANCEL_TICK) == Err(mpsc::RecvTimeoutError::Timeout) {
                    if run.cancel.is_requested() {
                        // Should it not get through, the session's end stops the statement.
                        drop(cancel.cancel_query(tls));
                        break;
                    }
                }
            });
            let result = work(client);
            drop(ended);
            result
        });
        run.cancel.check()?;
        result.map_err(PostgresError::statement(operation))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_about_tls_are_taken_out_of_a_url() {
        let (url, words) = take_out_tls_words(
            "postgresql://a@h/d?sslmode=verify-full&connect_timeout=3&sslrootcert=/ca.pem",
        )
        .unwrap();
        assert_eq!(url, "postgresql://a@h/d?connect_timeout=3");
        assert_eq!(words.mode, Some(SslMode::Require));
        assert_eq!(words.roots, Some(PathBuf::from("/ca.pem")));
        assert!(take_out_tls_words("postgresql://a@h/d?sslmode=verify-ca").is_err());
        assert_eq!(take_out_tls_words("host=h user=a").unwrap().0, "host=h user=a");
    }

    #[test]
    fn a_url_that_makes_no_sense_is_not_quoted() {
        let source = PostgresSource::new("postgresql://ana:geheim@h:port/db");
        let error = Target::parse(&source).err().unwrap();
        assert!(!format!("{error} {error:?} {source:?}").contains("geheim"));
    }
}
