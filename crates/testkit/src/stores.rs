//! Real servers that hold repositories, each of its own test: on the loopback address, gone when
//! dropped.
//!
//! S3 is moto and s3s-fs, Azure is Azurite (`scripts/test-setup.sh` puts them in
//! `target/store-servers`), REST
//! is rclone's `serve restic` and a small server of our own (`rest`), SFTP is OpenSSH's `sshd`,
//! started for each connection on the pipe of an `ssh`, so that it needs no port.

pub mod front;
pub mod line;
pub mod rest;

use std::{
    env, fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::{Scratch, peers};

/// How long a server may take to start: an interpreter on a busy machine takes its time.
const PATIENCE: Duration = Duration::from_secs(120);

/// A process that serves, with all that it started.
#[derive(Debug)]
pub struct Server {
    child: Child,
    address: String,
    _scratch: Scratch,
}

impl Server {
    /// Host and port: `127.0.0.1:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Starts a program that tells its address in a line of its output.
    fn start(mut command: Command, scratch: Scratch) -> Result<Self> {
        let shown = format!("{command:?}");
        let mut child = command
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {shown}"))?;
        let (sender, lines) = mpsc::channel();
        let pipes: [Option<Box<dyn std::io::Read + Send>>; 2] = [
            child.stdout.take().map(|pipe| Box::new(pipe) as _),
            child.stderr.take().map(|pipe| Box::new(pipe) as _),
        ];
        for pipe in pipes.into_iter().flatten() {
            let sender = sender.clone();
            // Reads on after the address is known, so that the server is never stopped by a pipe.
            thread::spawn(move || {
                for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                    sender.send(line).ok();
                }
            });
        }
        drop(sender);
        let mut server = Self { child, address: String::new(), _scratch: scratch };
        let mut said = Vec::new();
        while let Ok(line) = lines.recv_timeout(PATIENCE) {
            if let Some(address) = address_in(&line) {
                server.address = address;
                return Ok(server);
            }
            said.push(line);
        }
        bail!("{shown} told no address: {}", said.join("\n"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(pid) = Pid::from_raw(self.child.id().cast_signed()) {
            kill_process_group(pid, Signal::KILL).ok();
        }
        self.child.wait().ok();
    }
}

/// `127.0.0.1:PORT` in a line that says where a server listens.
fn address_in(line: &str) -> Option<String> {
    let (_, rest) = line.split_once("://127.0.0.1:")?;
    let port: String = rest.chars().take_while(char::is_ascii_digit).collect();
    (port != "0" && !port.is_empty()).then(|| format!("127.0.0.1:{port}"))
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/store-servers")
}

/// A program below `target/store-servers`, or the line that the test is skipped.
fn require(what: &str, program: &str) -> Option<PathBuf> {
    let found = folder().join(program);
    if found.exists() {
        return Some(found);
    }
    let required = env::var("MUSTER_TEST_REQUIRE").unwrap_or_default();
    let is_required = required.split(',').any(|word| word.trim() == "all");
    let message = format!("{what} is not installed (scripts/test-setup.sh)");
    assert!(!is_required, "MUSTER_TEST_REQUIRE=all, but {message}");
    let test = thread::current();
    let line = format!("SKIPPED: {}: {message}\n", test.name().unwrap_or("a test"));
    std::io::stderr().write_all(line.as_bytes()).ok();
    None
}

/// A server that speaks S3 (moto), with empty buckets of these names; `None` where moto is missing.
///
/// # Panics
///
/// It does not start; or it is missing and `MUSTER_TEST_REQUIRE` asks for it.
pub fn s3(buckets: &[&str]) -> Option<Server> {
    s3_with(buckets, &[])
}

/// The same with Object Lock (and versions) in all buckets.
///
/// # Panics
///
/// As [`s3`].
pub fn s3_with_locks(buckets: &[&str]) -> Option<Server> {
    s3_with(buckets, &["x-amz-bucket-object-lock-enabled: true".to_owned()])
}

/// Makes the archive of an S3 server take its time: what was asked for is on its way at the first
/// look and can be read from the second one on. Else it is there at once.
///
/// # Panics
///
/// The server does not answer.
pub fn slow_archive(server: &Server) {
    let body =
        br#"{"model_name":"s3::keyrestore","transition":{"progression":"manual","times":0}}"#;
    let headers = ["Content-Type: application/json".to_owned()];
    let line = "POST /moto-api/state-manager/set-transition HTTP/1.1";
    let answer = request(server.address(), line, &headers, body).expect("moto answers");
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
}

fn s3_with(buckets: &[&str], headers: &[String]) -> Option<Server> {
    let server = moto(&[])?;
    for bucket in buckets {
        let answer = request(server.address(), &format!("PUT /{bucket} HTTP/1.1"), headers, b"");
        let answer = answer.expect("moto answers");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    Some(server)
}

fn moto(arguments: &[&str]) -> Option<Server> {
    let program = require("moto", "python/bin/moto_server")?;
    let scratch = Scratch::new("moto").expect("a scratch folder");
    let mut command = Command::new(program);
    command.args(["-H", "127.0.0.1", "-p", "0"]).args(arguments).current_dir(scratch.path());
    command.env("PYTHONUNBUFFERED", "1");
    Some(Server::start(command, scratch).expect("moto starts"))
}

/// Who may ask a server of [`s3s`].
pub const S3S_LOGIN: [&str; 2] = ["muster", "muster-secret"];

/// Another server that speaks S3 (s3s-fs), and unlike moto looks at signatures; `None` where it is
/// missing. It knows no versions and no locks.
///
/// # Panics
///
/// As [`s3`].
pub fn s3s(buckets: &[&str]) -> Option<Server> {
    let program = require("s3s-fs", "s3s/bin/s3s-fs")?;
    let scratch = Scratch::new("s3s").expect("a scratch folder");
    for bucket in buckets {
        fs::create_dir_all(scratch.join(bucket)).expect("a folder for a bucket");
    }
    let [access, secret] = S3S_LOGIN;
    let mut command = Command::new(program);
    command.args(["--host", "127.0.0.1", "--port", "0", "--access-key", access]);
    command.args(["--secret-key", secret]).arg(scratch.path()).env("RUST_LOG", "info");
    Some(Server::start(command, scratch).expect("s3s-fs starts"))
}

/// A certificate of a server, the authority that signed it, and the server's key.
#[derive(Debug)]
pub struct Identity {
    scratch: Scratch,
}

/// An identity for the address `ip`; `None` where `openssl` is missing.
///
/// # Panics
///
/// It cannot be made.
pub fn identity(ip: &str) -> Option<Identity> {
    let openssl = peers::require("openssl")?;
    let scratch = Scratch::new("identity").expect("a scratch folder");
    let name = format!("subjectAltName=IP:{ip}");
    let authority = "req -x509 -newkey rsa:2048 -nodes -days 7 -subj /CN=authority -keyout ca-key \
                     -out ca";
    let server = "req -x509 -newkey rsa:2048 -nodes -days 7 -subj /CN=server -CA ca -CAkey ca-key \
                  -addext basicConstraints=critical,CA:FALSE -keyout key -out certificate -addext";
    for (words, last) in [(authority, None), (server, Some(&name))] {
        let mut command = openssl.command();
        command.args(words.split_whitespace()).args(last).current_dir(scratch.path());
        let made = command.output().expect("openssl starts");
        assert!(made.status.success(), "{made:?}");
    }
    Some(Identity { scratch })
}

impl Identity {
    /// The file of the authority's certificate.
    pub fn authority(&self) -> PathBuf {
        self.scratch.join("ca")
    }

    fn arguments(&self, certificate: &str, key: &str) -> [String; 4] {
        let path = |name: &str| self.scratch.join(name).display().to_string();
        [certificate.to_owned(), path("certificate"), key.to_owned(), path("key")]
    }
}

/// A server that speaks S3 over TLS, without buckets; `None` where moto is missing.
///
/// # Panics
///
/// As [`s3`].
pub fn s3_over_tls(identity: &Identity) -> Option<Server> {
    moto(&identity.arguments("--ssl-cert", "--ssl-key").each_ref().map(String::as_str))
}

/// rclone's `serve restic` over TLS; `None` where it is missing.
///
/// # Panics
///
/// As [`s3`].
pub fn rclone_over_tls(identity: &Identity) -> Option<Server> {
    rclone(&identity.arguments("--cert", "--key").each_ref().map(String::as_str))
}

/// Azurite's account and key, which are the same everywhere.
pub const AZURE_ACCOUNT: &str = "devstoreaccount1";
/// See [`AZURE_ACCOUNT`].
pub const AZURE_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// A server that speaks Azure's blob protocol (Azurite), with a container `muster`; `None` where
/// it is missing.
///
/// # Panics
///
/// As [`s3`].
pub fn azure() -> Option<Server> {
    let program = require("azurite", "azurite/node_modules/.bin/azurite-blob")?;
    let node = peers::require("node")?;
    let scratch = Scratch::new("azurite").expect("a scratch folder");
    let mut command = Command::new(node.program());
    command.arg(fs::canonicalize(program).expect("it exists"));
    command.args(["--blobHost", "127.0.0.1", "--blobPort", "0", "--skipApiVersionCheck"]);
    command.arg("--disableTelemetry").arg("--location").arg(scratch.path());
    command.current_dir(scratch.path());
    let server = Server::start(command, scratch).expect("azurite starts");
    let date = "Sun, 01 Mar 2026 00:00:00 GMT";
    let version = "2023-11-03";
    let resource = format!("/{AZURE_ACCOUNT}/{AZURE_ACCOUNT}/muster\nrestype:container");
    let to_sign =
        format!("PUT\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:{date}\nx-ms-version:{version}\n{resource}");
    let signature =
        BASE64.encode(hmac(&BASE64.decode(AZURE_KEY).expect("base64"), to_sign.as_bytes()));
    let headers = [
        format!("x-ms-date: {date}"),
        format!("x-ms-version: {version}"),
        format!("Authorization: SharedKey {AZURE_ACCOUNT}:{signature}"),
    ];
    let line = format!("PUT /{AZURE_ACCOUNT}/muster?restype=container HTTP/1.1");
    let answer = request(server.address(), &line, &headers, b"").expect("azurite answers");
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    Some(server)
}

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};

/// HMAC with SHA-256 (RFC 2104), for keys of one block at most.
fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    use sha2::{Digest as _, Sha256};
    let padded = |pad: u8| {
        let mut block = [pad; 64];
        block.iter_mut().zip(key).for_each(|(byte, key)| *byte ^= key);
        block
    };
    let inner = Sha256::new().chain_update(padded(0x36)).chain_update(message).finalize();
    Sha256::new().chain_update(padded(0x5c)).chain_update(inner).finalize().into()
}

/// rclone's `serve restic` over an empty folder; `None` where rclone is missing.
///
/// # Panics
///
/// As [`s3`].
pub fn rclone(arguments: &[&str]) -> Option<Server> {
    let rclone = peers::require("rclone")?;
    let scratch = Scratch::new("rclone").expect("a scratch folder");
    let mut command = rclone.command();
    command.args(["serve", "restic", "--addr", "127.0.0.1:0"]).args(arguments);
    command.arg(scratch.path());
    Some(Server::start(command, scratch).expect("rclone starts"))
}

/// Sends one request and gives the whole answer.
///
/// # Errors
///
/// The connection fails.
pub fn request(address: &str, line: &str, headers: &[String], body: &[u8]) -> Result<String> {
    let answer = exchange(address, line, headers, body)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn exchange(address: &str, line: &str, headers: &[String], body: &[u8]) -> Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address)?;
    let mut text = format!("{line}\r\nHost: {address}\r\nConnection: close\r\n");
    for header in headers {
        text.push_str(&format!("{header}\r\n"));
    }
    text.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
    stream.write_all(text.as_bytes())?;
    stream.write_all(body)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer)
}

/// A port of the loopback address where nobody listens.
///
/// # Panics
///
/// The system has none.
pub fn closed_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address").port()
}

/// An SSH server of a test's own: keys, configuration, and an empty folder.
#[derive(Debug)]
pub struct Ssh {
    scratch: Scratch,
    program: PathBuf,
}

/// An SSH server, or `None` where `sshd` is missing.
///
/// # Panics
///
/// Its keys cannot be made; or it is missing and `MUSTER_TEST_REQUIRE` asks for it.
pub fn ssh() -> Option<Ssh> {
    let sshd = Path::new("/usr/sbin/sshd");
    let program = match sshd.exists() {
        true => sshd.to_owned(),
        false => peers::require("sshd")?.program().to_owned(),
    };
    peers::require("ssh")?;
    Some(Ssh::new(program).expect("an SSH server can be set up"))
}

impl Ssh {
    fn new(program: PathBuf) -> Result<Self> {
        let scratch = Scratch::new("sshd")?;
        for name in ["host_key", "user_key", "other_key"] {
            let made = Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                .arg(scratch.join(name))
                .output()
                .context("start ssh-keygen")?;
            ensure!(made.status.success(), "ssh-keygen: {made:?}");
        }
        fs::copy(scratch.join("user_key.pub"), scratch.join("authorized_keys"))?;
        let host = fs::read_to_string(scratch.join("host_key.pub"))?;
        fs::write(scratch.join("known_hosts"), format!("muster-test {host}"))?;
        let other = fs::read_to_string(scratch.join("other_key.pub"))?;
        fs::write(scratch.join("wrong_hosts"), format!("muster-test {other}"))?;
        fs::create_dir(scratch.join("files"))?;
        let path = |name: &str| scratch.join(name).display().to_string();
        let config = format!(
            "HostKey {}\nAuthorizedKeysFile {}\nPidFile none\nStrictModes no\nUsePAM no\n\
             PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin yes\n\
             LogLevel QUIET\nSubsystem sftp internal-sftp\n",
            path("host_key"),
            path("authorized_keys"),
        );
        fs::write(scratch.join("sshd_config"), config)?;
        if rustix::process::geteuid().is_root() {
            // Where a server of the system would make it at its start.
            fs::create_dir_all("/run/sshd")?;
            fs::set_permissions("/run/sshd", fs::Permissions::from_mode(0o755))?;
        }
        Ok(Self { scratch, program })
    }

    /// The folder that is served.
    pub fn folder(&self) -> PathBuf {
        self.scratch.join("files")
    }

    /// Arguments for `ssh` that lead to the host `muster-test`, which is this server.
    pub fn arguments(&self) -> String {
        self.arguments_with("user_key", "known_hosts")
    }

    /// The same with a key that the server does not know.
    pub fn arguments_of_a_stranger(&self) -> String {
        self.arguments_with("other_key", "known_hosts")
    }

    /// The same, expecting another server.
    pub fn arguments_for_another(&self) -> String {
        self.arguments_with("user_key", "wrong_hosts")
    }

    fn arguments_with(&self, key: &str, hosts: &str) -> String {
        let path = |name: &str| self.scratch.join(name).display().to_string();
        format!(
            "-F none -o IdentitiesOnly=yes -i {} -o UserKnownHostsFile={} -o \
             GlobalKnownHostsFile=none -o 'ProxyCommand={} -i -f {}'",
            path(key),
            path(hosts),
            self.program.display(),
            path("sshd_config"),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_found_in_what_servers_say() {
        let check = |line: &str, address: Option<&str>| {
            assert_eq!(address_in(line).as_deref(), address, "{line}");
        };
        check(" * Running on http://127.0.0.1:5000", Some("127.0.0.1:5000"));
        check("successfully listening at http://127.0.0.1:1/", Some("127.0.0.1:1"));
        check("http://127.0.0.1:0", None);
        check("Press Ctrl+C", None);
    }

    /// RFC 4231, test case 2.
    #[test]
    fn hmac_is_what_the_standard_says() {
        let found = hmac(b"Jefe", b"what do ya want for nothing?");
        assert_eq!(found[..4], [0x5b, 0xdc, 0xc1, 0x46]);
    }
}
