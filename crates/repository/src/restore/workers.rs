//! The threads that restore batches.

use std::{
    sync::Arc,
    thread::{self, Scope},
};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::{Context, plan::Batch, write::Worker};
use crate::repository::ReadError;

/// More threads than this gain little on one disk, and each takes the memory of a range and of a
/// chunk: up to 16 MiB where chunks have their greatest length.
const THREADS_MAX: usize = 6;

/// Threads that work on one batch at a time, all of them on the same.
pub(super) struct Workers {
    count: usize,
    batches: Sender<Arc<Batch>>,
    done: Receiver<()>,
}

/// Tells that a thread is done with a batch, also when it panicked.
struct Done<'a>(&'a Sender<()>);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        // Nobody listens when the restore has ended with an error.
        self.0.send(()).ok();
    }
}

impl Workers {
    /// Starts the threads. They end when the value is dropped.
    pub(super) fn start<'scope>(
        scope: &'scope Scope<'scope, '_>,
        context: &'scope Context<'_>,
    ) -> Result<Self, ReadError> {
        let count = thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
        // Room for one batch: the next one is sent when it is done.
        let (batches, to_do) = bounded::<Arc<Batch>>(count);
        let (to_done, done) = bounded(count);
        for _ in 0..count {
            let mut worker = Worker::new(context)?;
            let (to_do, to_done) = (to_do.clone(), to_done.clone());
            scope.spawn(move || {
                for batch in to_do {
                    let done = Done(&to_done);
                    worker.work(&batch);
                    drop(batch);
                    drop(done);
                }
            });
        }
        Ok(Self { count, batches, done })
    }

    /// Begins a batch. The last one must have been waited for.
    pub(super) fn begin(&self, batch: &Arc<Batch>) {
        for _ in 0..self.count {
            // Fails only when all workers panicked, which the end of their scope reports.
            drop(self.batches.send(batch.clone()));
        }
    }

    /// Waits for a batch and gives it back.
    pub(super) fn wait(&self, batch: Arc<Batch>) -> Batch {
        for _ in 0..self.count {
            // Fails only when a worker panicked, which the end of its scope reports.
            self.done.recv().ok();
        }
        Arc::into_inner(batch).expect("workers give a batch back before they say they are done")
    }
}
