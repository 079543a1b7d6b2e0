//! The bridge from the engine's threads, which block, to clients that are asynchronous.
//!
//! One small runtime serves all stores of the process and is never dropped: one thread, which moves
//! bytes; encryption and compression happen elsewhere. A thread hands a future over and waits at a
//! channel; that works on a thread of any other runtime, too. That tasks run one at a time, in the
//! order in which they were woken, is relied upon (`connections.rs`).

use std::{
    future::Future,
    io,
    sync::{Arc, OnceLock, mpsc},
    thread,
};

use bytes::Bytes;
use tokio::runtime::{Builder, Handle};

use crate::stop::{LOOK, Watch};

static RUNTIME: OnceLock<Result<Handle, io::ErrorKind>> = OnceLock::new();

fn start() -> io::Result<Handle> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    let serve = move || runtime.block_on(std::future::pending::<()>());
    thread::Builder::new().name("stores".to_owned()).spawn(serve)?;
    Ok(handle)
}

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
    wait_while(future, watch, || ())
}

/// The same, while this thread does something first that ends when the future does.
///
/// # Errors
/// As [`wait_for`].
pub(crate) fn wait_while<T: Send + 'static>(
    future: impl Future<Output = T> + Send + 'static,
    watch: &Watch<'_>,
    meanwhile: impl FnOnce(),
) -> io::Result<Option<T>> {
    let runtime = RUNTIME.get_or_init(|| start().map_err(|error| error.kind()));
    let runtime = runtime.as_ref().map_err(|&kind| io::Error::from(kind))?;
    let (sender, receiver) = mpsc::sync_channel(1);
    let task = runtime.spawn(async move {
        // Whoever waited may have given up.
        drop(sender.send(future.await));
    });
    meanwhile();
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
