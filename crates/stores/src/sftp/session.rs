//! A conversation in SFTP: many requests at once over one pair of pipes.
//!
//! Two threads move packets; whoever asks waits at a channel of its own, and not for ever. A
//! session that broke stays broken; the store then begins another.

use std::{
    collections::HashMap,
    io::{self, BufReader, Read, Write},
    os::unix::process::CommandExt as _,
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, RecvTimeoutError, SendTimeoutError, Sender, bounded};
use muster_repository::storage::StorageProblem;

use super::{
    launch,
    wire::{self, PACKET_BYTES_MAX, Reply, Request},
};
use crate::{
    answer::Trouble,
    pace::Pace,
    stop::{GIVEN_UP, LOOK},
};

/// How long a reply may take. Disks behind a server spin up, and fsync takes its time.
const PATIENCE: Duration = Duration::from_secs(90);

/// How much of what the program says is kept.
const SAID_BYTES_MAX: usize = 4 << 10;

/// Packets between those who ask and the pipe: few, so that a slow line is felt.
const QUEUE: usize = 16;

/// How long to wait for the last words of a program that is gone.
const LAST_WORDS: Duration = Duration::from_millis(500);

type Waiting = Arc<Mutex<HashMap<u32, Sender<Reply>>>>;

/// A conversation. Ends the program when dropped.
#[derive(Debug)]
pub(crate) struct Session {
    child: Mutex<Child>,
    packets: Sender<Vec<u8>>,
    waiting: Waiting,
    next_id: AtomicU32,
    ended: Arc<AtomicBool>,
    said: Arc<Mutex<Vec<u8>>>,
    /// Ends when the program says nothing more.
    silent: Receiver<()>,
    extensions: Vec<String>,
    pace: Arc<Pace>,
}

impl Session {
    /// Starts the program and agrees on the protocol.
    pub(crate) fn begin(argv: &[String], pace: &Arc<Pace>) -> Result<Self, Trouble> {
        let (program, arguments) = argv
            .split_first()
            .ok_or_else(|| Trouble::new(StorageProblem::Denied, "the command is empty"))?;
        let started = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn();
        let mut child = started.map_err(|error| {
            Trouble::new(StorageProblem::Denied, format!("start {program}: {error}"))
        })?;
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(stdin), Some(stdout), Some(stderr)) = pipes else {
            return Err(Trouble::new(StorageProblem::Other, "a pipe is missing"));
        };
        let (packets, to_write) = bounded(QUEUE);
        let (speaking, silent) = bounded(0);
        let mut session = Self {
            child: Mutex::new(child),
            packets,
            waiting: Waiting::default(),
            next_id: AtomicU32::new(1),
            ended: Arc::default(),
            said: Arc::default(),
            silent,
            extensions: Vec::new(),
            pace: Arc::clone(pace),
        };
        session.serve((stdin, to_write), stdout, (stderr, speaking));
        session.extensions = session.agree()?;
        Ok(session)
    }

    fn serve(
        &self,
        (stdin, to_write): (ChildStdin, Receiver<Vec<u8>>),
        stdout: ChildStdout,
        (stderr, speaking): (ChildStderr, Sender<()>),
    ) {
        let (waiting, ended) = (Arc::clone(&self.waiting), Arc::clone(&self.ended));
        thread::spawn(move || {
            // Why it ended is told by what the program says; whoever waits is told that it did.
            drop(deliver(stdout, &waiting));
            ended.store(true, Ordering::Release);
            lock(&waiting).clear();
        });
        thread::spawn(move || {
            let mut stdin = stdin;
            for packet in to_write {
                if stdin.write_all(&packet).is_err() {
                    break;
                }
            }
        });
        let said = Arc::clone(&self.said);
        thread::spawn(move || {
            listen(stderr, &said);
            drop(speaking);
        });
    }

    fn agree(&self) -> Result<Vec<String>, Trouble> {
        let answer = self.post(0, wire::init())?;
        match self.receive(&answer)? {
            Reply::Version { extensions } => Ok(extensions),
            _ => Err(Trouble::new(StorageProblem::Other, wire::no_sftp().to_string())),
        }
    }

    /// Whether it can still be used.
    pub(crate) fn is_alive(&self) -> bool {
        !self.ended.load(Ordering::Acquire)
    }

    /// Whether the server offers an extension.
    pub(crate) fn offers(&self, extension: &str) -> bool {
        self.extensions.iter().any(|offered| offered == extension)
    }

    /// Sends a request; its reply comes through what is returned.
    pub(crate) fn send(&self, request: Request<'_>) -> Result<Receiver<Reply>, Trouble> {
        // 0 is the number of the first packet, whose reply has none.
        let id = self.next_id.fetch_add(1, Ordering::Relaxed).max(1);
        self.post(id, request.packet(id))
    }

    /// Sends a request and waits for its reply.
    pub(crate) fn ask(&self, request: Request<'_>) -> Result<Reply, Trouble> {
        self.receive(&self.send(request)?)
    }

    fn post(&self, id: u32, packet: Vec<u8>) -> Result<Receiver<Reply>, Trouble> {
        let (sender, receiver) = bounded(1);
        lock(&self.waiting).insert(id, sender);
        let queued = match self.is_alive() {
            true => self.queue(packet),
            false => Err(self.broken()),
        };
        match queued {
            Ok(()) => Ok(receiver),
            Err(trouble) => {
                lock(&self.waiting).remove(&id);
                Err(trouble)
            }
        }
    }

    /// Hands a packet to the thread that writes, which a slow line makes wait.
    fn queue(&self, mut packet: Vec<u8>) -> Result<(), Trouble> {
        let (began, watch) = (Instant::now(), self.pace.stop.watch());
        loop {
            packet = match self.packets.send_timeout(packet, LOOK) {
                Ok(()) => return Ok(()),
                Err(SendTimeoutError::Timeout(packet)) if began.elapsed() < PATIENCE => packet,
                Err(_) => return Err(self.broken()),
            };
            if watch.is_over() {
                return Err(given_up());
            }
        }
    }

    /// Waits for a reply.
    pub(crate) fn receive(&self, reply: &Receiver<Reply>) -> Result<Reply, Trouble> {
        let (began, watch) = (Instant::now(), self.pace.stop.watch());
        loop {
            match reply.recv_timeout(LOOK) {
                Ok(reply) => return Ok(reply),
                Err(RecvTimeoutError::Disconnected) => return Err(self.broken()),
                // The conversation goes on: a lock may still be released in it.
                Err(RecvTimeoutError::Timeout) if watch.is_over() => return Err(given_up()),
                Err(RecvTimeoutError::Timeout) if began.elapsed() >= PATIENCE => {
                    self.end();
                    let late = "the server did not answer in time";
                    return Err(Trouble::new(StorageProblem::TimedOut, late));
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// Why nothing comes any more.
    fn broken(&self) -> Trouble {
        self.end();
        // Its last words may still be on their way; a child of its own may keep the pipe open.
        let patience = if self.pace.stop.is_requested() { LOOK } else { LAST_WORDS };
        self.silent.recv_timeout(patience).ok();
        let said = String::from_utf8_lossy(&lock(&self.said)).into_owned();
        let last = said.lines().rev().map(str::trim).find(|line| !line.is_empty());
        let text: String = last.unwrap_or("the connection broke").chars().take(300).collect();
        Trouble::new(launch::problem_of(&said), text)
    }

    fn end(&self) {
        self.ended.store(true, Ordering::Release);
        let mut child = lock(&self.child);
        // It may be gone already, which is as well.
        drop(child.kill());
        drop(child.wait());
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.end();
    }
}

fn given_up() -> Trouble {
    Trouble::new(StorageProblem::Interrupted, GIVEN_UP)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Hands replies to those who wait for them, until the pipe ends.
fn deliver(stdout: ChildStdout, waiting: &Waiting) -> io::Result<()> {
    let mut pipe = BufReader::with_capacity(256 << 10, stdout);
    let mut packet = Vec::new();
    loop {
        let mut length = [0; 4];
        pipe.read_exact(&mut length)?;
        let length = u32::from_be_bytes(length);
        if length > PACKET_BYTES_MAX {
            return Err(wire::no_sftp());
        }
        packet.resize(usize::try_from(length).map_err(|_| wire::no_sftp())?, 0);
        pipe.read_exact(&mut packet)?;
        let (id, reply) = wire::parse(&packet)?;
        if let Some(sender) = lock(waiting).remove(&id) {
            // Whoever asked may have given up.
            drop(sender.send(reply));
        }
    }
}

/// Keeps the last of what the program says.
fn listen(mut stderr: ChildStderr, said: &Mutex<Vec<u8>>) {
    let mut buffer = [0; 1024];
    while let Ok(bytes @ 1..) = stderr.read(&mut buffer) {
        let mut said = lock(said);
        said.extend(&buffer[..bytes]);
        let surplus = said.len().saturating_sub(SAID_BYTES_MAX);
        said.drain(..surplus);
    }
}
