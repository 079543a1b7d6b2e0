//! The replication protocol, as far as a base backup needs it: start, authenticate, one query at
//! a time, and the bytes of a copy.
//!
//! The driver that statements use does not speak it, for such a connection is opened with
//! `replication=true`. Sockets have a short read timeout, and between two of them it is looked
//! whether the run shall stop.
//!
//! # Source
//! PostgreSQL documentation, *Frontend/Backend Protocol*: *Message Flow*, *Message Formats*,
//! *SASL Authentication*.

use std::{
    io::{self, BufReader, Read, Write},
    net::{TcpStream, ToSocketAddrs},
    os::unix::net::UnixStream,
    sync::Arc,
    time::{Duration, Instant},
};

use muster_repository::run::Run;
use postgres::config::{Host, SslMode};
use postgres_protocol::authentication::{
    md5_hash,
    sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256},
};
use rustls::{ClientConnection, StreamOwned, pki_types::ServerName};
use zeroize::Zeroizing;

use super::{PostgresError, connection::Target, error::is_denied, tls};

/// How long a read waits before it is looked whether the run shall stop.
const READ_TICK: Duration = Duration::from_millis(200);

/// How long a server may say nothing before the connection counts as lost. A checkpoint of a busy
/// server, for which a base backup waits, can take minutes.
const SILENCE_MAX: Duration = Duration::from_secs(15 * 60);

/// How long a write may take.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest message that is accepted, in bytes; a server sends a copy in pieces of kilobytes.
const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// Version 3.0 of the protocol.
const PROTOCOL: i32 = 3 << 16;
/// Asks whether the server speaks TLS.
const SSL_REQUEST: i32 = 80_877_103;

/// Either kind of socket, with TLS or without.
trait Transport: Read + Write + Send {}
impl<T: Read + Write + Send> Transport for T {}

/// A message of the server.
#[derive(Debug, Default)]
pub(super) struct Message {
    /// What it is.
    pub(super) tag: u8,
    /// Its content.
    pub(super) body: Vec<u8>,
}

/// A row of a result, as text.
pub(super) type Row = Vec<Option<String>>;

/// What the server says in an error or a notice.
#[derive(Debug, Clone, Default)]
pub(super) struct Said {
    /// SQLSTATE.
    pub(super) code: String,
    /// For people.
    pub(super) message: String,
}

/// A connection that speaks the replication protocol.
pub(super) struct Replication<'r> {
    transport: BufReader<Box<dyn Transport>>,
    run: &'r Run,
    /// The server's process, as `pg_stat_progress_basebackup` numbers it.
    pub(super) process: i32,
    /// Warnings since the last look.
    pub(super) warnings: Vec<Said>,
    /// SQLSTATE of the last error.
    pub(super) failure: String,
}

impl<'r> Replication<'r> {
    /// Connects and authenticates.
    pub(super) fn connect(target: &Target, run: &'r Run) -> Result<Self, PostgresError> {
        let transport = open(target).map_err(|error| target.unreachable(&error.to_string()))?;
        let transport = BufReader::with_capacity(64 << 10, transport);
        let mut this =
            Self { transport, run, process: 0, warnings: Vec::new(), failure: String::new() };
        let mut body = PROTOCOL.to_be_bytes().to_vec();
        let words = [
            ("user", target.user()),
            ("replication", "true"),
            ("application_name", "muster"),
            ("client_encoding", "UTF8"),
        ];
        for text in words.iter().flat_map(|(name, value)| [name, value]) {
            body.extend_from_slice(text.as_bytes());
            body.push(0);
        }
        body.push(0);
        this.send(None, &body)?;
        this.authenticate(target)?;
        Ok(this)
    }

    fn authenticate(&mut self, target: &Target) -> Result<(), PostgresError> {
        let mut scram = None;
        let mut message = Message::default();
        loop {
            self.receive(&mut message)?;
            match message.tag {
                b'R' => self.answer(target, &message.body, &mut scram)?,
                b'K' => self.process = number(&message.body),
                b'Z' => return Ok(()),
                tag => return Err(unexpected(tag)),
            }
        }
    }

    /// Answers a request for authentication.
    fn answer(
        &mut self,
        target: &Target,
        body: &[u8],
        scram: &mut Option<ScramSha256>,
    ) -> Result<(), PostgresError> {
        let rest = body.get(4..).unwrap_or_default();
        let password = || target.config.get_password().ok_or_else(|| denied(NO_PASSWORD));
        let scram_failed = |error: io::Error| denied(&error.to_string());
        match number(body) {
            0 => Ok(()),
            3 => {
                let mut answer = Zeroizing::new(password()?.to_vec());
                answer.push(0);
                self.send(Some(b'p'), &answer)
            }
            5 => {
                let salt: [u8; 4] =
                    rest.try_into().map_err(|_| denied("it asks for MD5 without a salt"))?;
                let hash = md5_hash(target.user().as_bytes(), password()?, salt);
                self.send(Some(b'p'), &[hash.as_bytes(), b"\0"].concat())
            }
            10 => {
                let offered = rest.split(|&byte| byte == 0);
                if !offered.into_iter().any(|name| name == SCRAM_SHA_256.as_bytes()) {
                    return Err(denied("it offers no way to authenticate that is known here"));
                }
                let new = ScramSha256::new(password()?, ChannelBinding::unsupported());
                let first = new.message();
                let length = i32::try_from(first.len()).unwrap_or(i32::MAX).to_be_bytes();
                let answer = [SCRAM_SHA_256.as_bytes(), b"\0", &length, first].concat();
                *scram = Some(new);
                self.send(Some(b'p'), &answer)
            }
            11 => {
                let scram = scram.as_mut().ok_or_else(|| unexpected(b'R'))?;
                scram.update(rest).map_err(scram_failed)?;
                let answer = scram.message().to_vec();
                self.send(Some(b'p'), &answer)
            }
            12 => {
                let scram = scram.as_mut().ok_or_else(|| unexpected(b'R'))?;
                scram.finish(rest).map_err(scram_failed)
            }
            _ => Err(denied("it asks for a way to authenticate that is not known here")),
        }
    }

    /// Runs a query and returns the rows of its result.
    pub(super) fn query(&mut self, text: &str) -> Result<Vec<Row>, PostgresError> {
        self.start(text)?;
        let mut rows = Ok(Vec::new());
        let mut message = Message::default();
        loop {
            match self.receive(&mut message) {
                Ok(()) => {}
                // After it the server is ready again.
                Err(error @ (PostgresError::Statement { .. } | PostgresError::Denied { .. })) => {
                    rows = Err(error);
                    continue;
                }
                Err(error) => return Err(error),
            }
            match (message.tag, &mut rows) {
                (b'T' | b'C', _) => {}
                (b'D', Ok(rows)) => rows.push(row(&message.body)?),
                (b'Z', _) => return rows,
                (tag, _) => return Err(unexpected(tag)),
            }
        }
    }

    /// Starts a query whose answers are then received one by one.
    pub(super) fn start(&mut self, text: &str) -> Result<(), PostgresError> {
        self.send(Some(b'Q'), &[text.as_bytes(), b"\0"].concat())
    }

    /// Receives the rows of the next result of a running query.
    pub(super) fn result(&mut self) -> Result<Vec<Row>, PostgresError> {
        let mut rows = Vec::new();
        let mut message = Message::default();
        loop {
            self.receive(&mut message)?;
            match message.tag {
                b'T' => {}
                b'D' => rows.push(row(&message.body)?),
                b'C' => return Ok(rows),
                tag => return Err(unexpected(tag)),
            }
        }
    }

    fn send(&mut self, tag: Option<u8>, body: &[u8]) -> Result<(), PostgresError> {
        let length = i32::try_from(body.len() + 4).unwrap_or(i32::MAX).to_be_bytes();
        let tag: &[u8] = match &tag {
            Some(tag) => std::slice::from_ref(tag),
            None => &[],
        };
        let message = Zeroizing::new([tag, &length, body].concat());
        let transport = self.transport.get_mut();
        transport
            .write_all(&message)
            .and_then(|()| transport.flush())
            .map_err(|error| lost(&error.to_string()))
    }

    /// Receives the next message that is not merely informative.
    pub(super) fn receive(&mut self, message: &mut Message) -> Result<(), PostgresError> {
        loop {
            let mut head = [0; 5];
            self.fill(&mut head)?;
            let length = number(&head[1..]);
            let length = usize::try_from(length).ok().and_then(|length| length.checked_sub(4));
            let length = length.filter(|&length| length <= MESSAGE_BYTES_MAX);
            let length = length.ok_or_else(|| lost("it sent a message of an absurd length"))?;
            message.tag = head[0];
            message.body.resize(length, 0);
            self.fill(&mut message.body)?;
            match message.tag {
                b'E' => {
                    let said = said(&message.body);
                    self.failure.clone_from(&said.code);
                    return Err(failed(said));
                }
                b'N' => self.warnings.push(said(&message.body)),
                b'S' => {}
                _ => return Ok(()),
            }
        }
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), PostgresError> {
        let mut filled = 0;
        let mut heard = Instant::now();
        while filled < bytes.len() {
            self.run.cancel.check()?;
            match self.transport.read(&mut bytes[filled..]) {
                Ok(0) => return Err(lost("the server closed it")),
                Ok(read) => (filled, heard) = (filled + read, Instant::now()),
                Err(error) if is_pause(&error) && heard.elapsed() < SILENCE_MAX => {}
                Err(error) if is_pause(&error) => return Err(lost("the server fell silent")),
                Err(error) => return Err(lost(&error.to_string())),
            }
        }
        Ok(())
    }
}

const NO_PASSWORD: &str = "it asks for a password, and none was given";

fn is_pause(error: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    matches!(error.kind(), WouldBlock | TimedOut | Interrupted)
}

/// Opens the socket, with TLS where it is wanted and can be had.
fn open(target: &Target) -> io::Result<Box<dyn Transport>> {
    let hosts = target.config.get_hosts().iter().enumerate();
    let ports = target.config.get_ports();
    let mut last = io::Error::other("no host is named");
    for (index, host) in hosts {
        let port = ports.get(index).or(ports.first()).copied().unwrap_or(5432);
        let opened = match host {
            Host::Tcp(name) => open_tcp(target, name, port),
            Host::Unix(folder) => open_unix(folder, port),
        };
        match opened {
            Ok(transport) => return Ok(transport),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn open_unix(folder: &std::path::Path, port: u16) -> io::Result<Box<dyn Transport>> {
    let stream = UnixStream::connect(folder.join(format!(".s.PGSQL.{port}")))?;
    stream.set_read_timeout(Some(READ_TICK))?;
    stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
    Ok(Box::new(stream))
}

fn open_tcp(target: &Target, name: &str, port: u16) -> io::Result<Box<dyn Transport>> {
    let timeout = target.config.get_connect_timeout().copied().unwrap_or(WRITE_TIMEOUT);
    let mut last = io::Error::other("the host has no address");
    let mut connected = None;
    for address in (name, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, timeout) {
            Ok(stream) => {
                connected = Some(stream);
                break;
            }
            Err(error) => last = error,
        }
    }
    let mut stream = connected.ok_or(last)?;
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
    stream.set_read_timeout(Some(timeout))?;
    let mode = target.config.get_ssl_mode();
    let with_tls = mode != SslMode::Disable && offers_tls(&mut stream)?;
    if with_tls {
        let config = tls::config(target.roots.as_deref()).map_err(io::Error::other)?;
        let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
        let mut session =
            ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
        // Still with the long timeout: a handshake cannot be taken up again after a short one.
        while session.is_handshaking() {
            session.complete_io(&mut stream)?;
        }
        stream.set_read_timeout(Some(READ_TICK))?;
        return Ok(Box::new(StreamOwned::new(session, stream)));
    }
    if mode == SslMode::Require {
        return Err(io::Error::other("the server does not offer TLS"));
    }
    stream.set_read_timeout(Some(READ_TICK))?;
    Ok(Box::new(stream))
}

fn offers_tls(stream: &mut TcpStream) -> io::Result<bool> {
    stream.write_all(&[8i32.to_be_bytes(), SSL_REQUEST.to_be_bytes()].concat())?;
    // Exactly one byte: what a stranger put in after it would count as encrypted.
    let mut answer = [0];
    stream.read_exact(&mut answer)?;
    Ok(answer == *b"S")
}

fn number(bytes: &[u8]) -> i32 {
    bytes.first_chunk().map_or(-1, |bytes| i32::from_be_bytes(*bytes))
}

/// Reads a `DataRow`.
fn row(body: &[u8]) -> Result<Row, PostgresError> {
    let broken = || lost("it sent a row that cannot be read");
    let (count, mut rest) = body.split_first_chunk::<2>().ok_or_else(broken)?;
    let mut row = Row::new();
    for _ in 0..u16::from_be_bytes(*count) {
        let (length, after) = rest.split_first_chunk::<4>().ok_or_else(broken)?;
        match usize::try_from(i32::from_be_bytes(*length)) {
            Ok(length) => {
                let (value, after) = after.split_at_checked(length).ok_or_else(broken)?;
                row.push(Some(String::from_utf8_lossy(value).into_owned()));
                rest = after;
            }
            // A length of −1 is NULL.
            Err(_) => {
                row.push(None);
                rest = after;
            }
        }
    }
    Ok(row)
}

/// Reads an `ErrorResponse` or a `NoticeResponse`.
fn said(body: &[u8]) -> Said {
    let mut said = Said::default();
    for field in body.split(|&byte| byte == 0) {
        let Some((kind, text)) = field.split_first() else { continue };
        let text = String::from_utf8_lossy(text).into_owned();
        match kind {
            b'C' => said.code = text,
            b'M' => said.message = text,
            _ => {}
        }
    }
    said
}

fn failed(said: Said) -> PostgresError {
    let operation = "speak to the server";
    match said.code.as_str() {
        code if is_denied(code) => PostgresError::Denied { operation, message: said.message },
        code if code.starts_with("57P") => lost(&said.message),
        // The code is asked for by who waits for it.
        code => PostgresError::Statement {
            operation: "take a base backup",
            message: format!("{} ({code})", said.message),
        },
    }
}

fn denied(message: &str) -> PostgresError {
    PostgresError::Denied { operation: "connect to the server", message: message.to_owned() }
}

fn lost(message: &str) -> PostgresError {
    PostgresError::Lost { operation: "back up the server", message: message.to_owned() }
}

pub(super) fn unexpected(tag: u8) -> PostgresError {
    lost(&format!("it sent '{}' where that makes no sense", char::from(tag)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_with_their_nulls() {
        let body = b"\x00\x02\x00\x00\x00\x02ab\xff\xff\xff\xff";
        assert_eq!(row(body).unwrap(), [Some("ab".to_owned()), None]);
        assert!(row(&body[..7]).is_err());
    }

    #[test]
    fn errors_are_read_field_by_field() {
        let said = said(b"SFATAL\0C28P01\0Mno entry\0\0");
        assert_eq!((said.code.as_str(), said.message.as_str()), ("28P01", "no entry"));
        assert!(matches!(failed(said), PostgresError::Denied { .. }));
    }
}
