//! The bridge between verbs, which block, and drivers, which are asynchronous.

use std::future::Future;

use tokio::runtime::{Builder, Runtime};

use crate::error::OperationError;

/// Threads of the runtime: probes, the monitor of isolation, and one that may block in a
/// restore.
const WORKERS: usize = 4;

fn runtime() -> Result<Runtime, OperationError> {
    let built = Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build();
    built.map_err(OperationError::io("start", "the runtime"))
}

/// Runs a future to its end. Blocking calls in it go through
/// [`tokio::task::block_in_place`].
pub(crate) fn block_on<F: Future>(future: F) -> Result<F::Output, OperationError> {
    Ok(runtime()?.block_on(future))
}
