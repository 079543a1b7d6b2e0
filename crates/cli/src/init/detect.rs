//! What stands beside the plan: databases, folders with data, a compose file.
//!
//! Guesses, and cheap ones: a person reads the plan before anything relies on it. What cannot be
//! looked at counts as not there.

use std::{
    fs,
    io::Read as _,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use muster_plan::{Detected, without_password};

use super::find_files;
use crate::location::variable_set;

/// How long a server on this machine may take to accept.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(300);
/// Where Debian's PostgreSQL listens.
const SOCKETS: &str = "/var/run/postgresql";
/// The port of PostgreSQL.
const PORT: u16 = 5432;
/// The names that a compose file may have, the first that is there counts.
const COMPOSE_FILES: [&str; 4] =
    ["compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml"];
/// Larger files were not written by people.
const COMPOSE_BYTES_MAX: u64 = 1 << 20;

/// Looks around in a folder.
pub(super) fn detect(folder: &Path) -> Detected {
    let files = find_files::find(folder);
    Detected {
        name: name(folder),
        sqlite_files: files.databases,
        postgres_urls: postgres().into_iter().collect(),
        compose_services: compose(folder),
        folders: files.folders,
    }
}

/// The folder's own name.
fn name(folder: &Path) -> String {
    let real = fs::canonicalize(folder).unwrap_or_default();
    real.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The server that the environment names, or one that listens here.
fn postgres() -> Option<String> {
    named_by_url().or_else(named_by_parts).or_else(listening)
}

fn text(variable: &str) -> Option<String> {
    variable_set(variable)?.into_string().ok()
}

fn named_by_url() -> Option<String> {
    let url = text("DATABASE_URL")?;
    let is_postgres = url.starts_with("postgres://") || url.starts_with("postgresql://");
    is_postgres.then(|| without_password(&url))
}

fn named_by_parts() -> Option<String> {
    let (host, database) = (text("PGHOST"), text("PGDATABASE"));
    if host.is_none() && database.is_none() {
        return None;
    }
    // A socket's folder has no place in an address.
    let host = host.filter(|host| !host.starts_with('/')).unwrap_or_else(|| "localhost".to_owned());
    let port = text("PGPORT").map(|port| format!(":{port}")).unwrap_or_default();
    let user = text("PGUSER");
    let database = database.or_else(|| user.clone()).unwrap_or_else(|| "postgres".to_owned());
    let user = user.map(|user| format!("{user}@")).unwrap_or_default();
    Some(without_password(&format!("postgresql://{user}{host}{port}/{database}")))
}

fn listening() -> Option<String> {
    let socket = format!("{SOCKETS}/.s.PGSQL.{PORT}");
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, PORT));
    let listens = UnixStream::connect(socket).is_ok()
        || TcpStream::connect_timeout(&address, CONNECT_TIMEOUT).is_ok();
    listens.then(|| "postgresql://localhost/postgres".to_owned())
}

/// The services of the compose file.
fn compose(folder: &Path) -> Vec<String> {
    let files = COMPOSE_FILES.iter().map(|name| folder.join(name));
    let text = files.filter(|path| path.is_file()).find_map(|path| {
        let mut text = String::new();
        let file = fs::File::open(path).ok()?;
        file.take(COMPOSE_BYTES_MAX).read_to_string(&mut text).ok()?;
        Some(text)
    });
    text.map(|text| compose_services(&text)).unwrap_or_default()
}

/// The keys below `services:`, read line by line: good enough for what people write, and a name
/// too many or too few does no harm.
fn compose_services(text: &str) -> Vec<String> {
    let lines = text.lines().filter(|line| {
        let line = line.trim_start();
        !line.is_empty() && !line.starts_with('#')
    });
    let below =
        lines.skip_while(|line| line.split('#').next().unwrap_or("").trim_end() != "services:");
    let below: Vec<&str> = below.skip(1).take_while(|line| line.starts_with([' ', '\t'])).collect();
    let indent = |line: &str| line.len() - line.trim_start().len();
    let first = below.first().map_or(0, |line| indent(line));
    let keys = below.into_iter().filter(|line| indent(line) == first);
    let names = keys.filter_map(|line| line.trim_start().split_once(':')).map(|(name, _)| name);
    names.map(|name| name.trim_matches(['"', '\'']).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_of_a_compose_file_are_the_keys_below_services() {
        let check = |text: &str, expected: &[&str]| {
            assert_eq!(compose_services(text), expected, "{text}");
        };
        check(
            "services:\n  web:\n    image: x\n  \"db\": {image: y}\nvolumes:\n  a:\n",
            &["web", "db"],
        );
        check("x: 1\nservices: # ours\n\n    # none\n    api:\n        ports: [1]\n", &["api"]);
        check("services: {}\n", &[]);
        check("", &[]);
    }
}
