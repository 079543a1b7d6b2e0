//! What the demo's clients share: a thread to work on, a way to ask, and moments.
//!
//! Clients run on threads of their own, so that whatever the demo does meanwhile, blocking or
//! not, neither slows them down nor is slowed down by them.

use std::{
    io,
    sync::{Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use reqwest::Client;
use tokio::{runtime::Builder, sync::watch};

/// When something was seen: by the clock that never jumps, and by the one people read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment {
    /// For differences.
    pub(crate) instant: Instant,
    /// For reports.
    pub(crate) timestamp: Timestamp,
}

impl Moment {
    /// This moment.
    pub(crate) fn now() -> Self {
        Self { instant: Instant::now(), timestamp: Timestamp::now() }
    }
}

/// Ends when the worker is told to stop.
pub(super) type Stop = watch::Receiver<()>;

/// A thread that works until it is told to stop, or dropped.
#[derive(Debug)]
pub(super) struct Worker {
    stop: Option<watch::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// Starts to work.
    ///
    /// # Errors
    ///
    /// The system has no thread or file descriptor left.
    pub(super) fn start<W: Future<Output = ()>>(
        name: &str,
        work: impl FnOnce(Stop) -> W + Send + 'static,
    ) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (sender, receiver) = watch::channel(());
        let thread = thread::Builder::new().name(name.to_owned());
        let thread = thread.spawn(move || runtime.block_on(work(receiver)))?;
        Ok(Self { stop: Some(sender), thread: Some(thread) })
    }

    /// Lets it finish what it has begun, and waits for that.
    pub(super) fn stop(&mut self) {
        self.stop = None;
        // If it panicked, the panic was told already.
        self.thread.take().map(JoinHandle::join).transpose().ok();
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Does `work` to its end, from anywhere: also where a runtime runs already.
///
/// # Errors
///
/// The work failed, or the system has no thread or file descriptor left.
pub(super) fn wait<T: Send>(work: impl Future<Output = io::Result<T>> + Send) -> io::Result<T> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    thread::scope(|scope| scope.spawn(|| runtime.block_on(work)).join())
        .unwrap_or_else(|_| Err(io::Error::other("the client panicked")))
}

/// A client for plain HTTP, which asks no proxy.
///
/// # Errors
///
/// The system refuses what it needs.
pub(super) fn http(timeout: Duration) -> io::Result<Client> {
    // Never used, since no address is https; the library insists on having one. If there is one
    // already, so much the better.
    drop(rustls::crypto::ring::default_provider().install_default());
    let client = Client::builder().no_proxy().tls_certs_only([]).timeout(timeout);
    client.build().map_err(io::Error::other)
}

/// The lock on what was seen. Each entry is pushed whole, so a panic leaves nothing half done.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
