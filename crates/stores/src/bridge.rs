//! The bridge from the engine's threads, which block, to clients that are asynchronous.
//!
//! One small runtime serves all stores of the process and is never dropped. A thread hands a
//! future over and waits at a channel; that works on a thread of any other runtime, too.

use std::{
    future::Future,
    io,
    sync::{Arc, OnceLock, mpsc},
};

use bytes::Bytes;
use tokio::runtime::{Builder, Runtime};

use crate::stop::{LOOK, Watch};

/// Threads that move bytes; encryption and compression happen elsewhere.
const WORKERS: usize = 2;

static RUNTIME: OnceLock<Result<Runtime, io::ErrorKind>> = OnceLock::new();

/// Content that is sent from where it lies: nobody copies a pack.
pub(crate) struct Shared(Arc<Vec<u8>>);

impl Shared {
    pub(crate) fn bytes(content: &Arc<Vec<u8>>) -> Bytes {
        Bytes::from_owner(Self(Arc::clone(content)))
    }
}

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Runs a future to its end, or drops it when `watch` is over (`None`).
///
/// # Errors
/// Fails when the runtime cannot be started, or the future panicked.
pub(crate) fn wait_for<T: Send + 'static>(
    future: impl Future<Output = T> + Send + 'static,
    watch: &Watch<'_>,
) -> io::Result<Option<T>> {
    let runtime = RUNTIME.get_or_init(|| {
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(WORKERS).thread_name("stores").enable_all();
        builder.build().map_err(|error| error.kind())
    });
    let runtime = runtime.as_ref().map_err(|&kind| io::Error::from(kind))?;
    let (sender, receiver) = mpsc::sync_channel(1);
    let task = runtime.spawn(async move {
        // Whoever waited may have given up.
        drop(sender.send(future.await));
    });
    loop {
        match receiver.recv_timeout(LOOK) {
            Ok(value) => return Ok(Some(value)),
            Err(mpsc::RecvTimeoutError::Timeout) if watch.is_over() => {
                task.abort();
                return Ok(None);
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                return Err(io::Error::other("a task of the store's client ended early"));
            }
        }
    }
}
