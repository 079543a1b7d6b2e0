//! The threads that restore batches.
//!
//! ```text
//!            ranges            chunks
//! readers ────────────► workers ──────► files
//! ```
//!
//! Readers wait for the store, as many as it takes requests; workers open and write, one for each
//! core. Nothing waits between them, so memory is bounded by their number. Readers go on to the
//! next batch when a batch has nothing left to read.

use std::{collections::HashMap, sync::Arc, thread::Scope};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use super::{
    Context,
    open::Range,
    plan::{Batch, range_bytes_max},
    write::{Worker, read_next},
};
use crate::{environment::cores, repository::ReadError};

/// More workers than this gain little on one disk.
const WORKERS_MAX: usize = 6;

/// Each reader takes the memory of a range ([`range_bytes_max`]) or a chunk: the goal for memory is 128 MiB.
const READERS_MAX: usize = 12;

/// A batch that was begun.
pub(super) struct Begun {
    serial: u64,
    batch: Arc<Batch>,
}

/// Threads that work on batches, in their order.
pub(super) struct Workers {
    count: usize,
    readers: usize,
    range_bytes: u32,
    batches: Sender<(u64, Arc<Batch>)>,
    news: Receiver<News>,
    begun: u64,
    /// What is still to be heard of batches that nobody waited for yet.
    outstanding: HashMap<u64, Outstanding>,
}

#[derive(Default)]
struct Outstanding {
    /// Readers that are done with it.
    readers: usize,
    handed_over: usize,
    finished: usize,
}

/// What threads tell of the batch with a number.
enum News {
    /// A reader is done with it, and has handed over so many jobs.
    Read(u64, usize),
    /// A job is done.
    Finished(u64),
}

/// A batch in the hands of a reader; tells when it is given back, also when that panicked.
struct Reading<'a> {
    news: &'a Sender<News>,
    serial: u64,
    batch: Option<Arc<Batch>>,
    handed_over: usize,
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.batch = None;
        // Nobody listens when the restore has ended with an error.
        self.news.send(News::Read(self.serial, self.handed_over)).ok();
    }
}

/// A job with what was read for it; tells when it is done or dropped.
struct Handed {
    news: Sender<News>,
    serial: u64,
    batch: Option<Arc<Batch>>,
    job: usize,
    range: Range,
}

impl Drop for Handed {
    fn drop(&mut self) {
        self.batch = None;
        self.news.send(News::Finished(self.serial)).ok();
    }
}

impl Workers {
    /// Starts the threads. They end when the value is dropped.
    pub(super) fn start<'scope>(
        scope: &'scope Scope<'scope, '_>,
        context: &'scope Context<'_>,
    ) -> Result<Self, ReadError> {
        let workers = cores().min(WORKERS_MAX);
        let connections = context.repository.storage().costs().connections;
        let readers = connections.clamp(1, READERS_MAX);
        let range_bytes = range_bytes_max(workers + readers);
        // Few batches exist at once, see `Walk::submit`.
        let (batches, to_read) = unbounded::<(u64, Arc<Batch>)>();
        let (to_work, handed) = bounded::<Handed>(0);
        let (to_pool, pool) = bounded(readers + workers);
        let (tell, news) = unbounded();
        for _ in 0..workers {
            let mut worker = Worker::new(context, range_bytes)?;
            let (handed, to_pool) = (handed.clone(), to_pool.clone());
            scope.spawn(move || {
                for mut handed in handed {
                    let range = std::mem::take(&mut handed.range);
                    let batch = handed.batch.as_deref();
                    let buffer = batch.map(|batch| worker.work(batch, handed.job, range));
                    // Room that nobody needs is given back.
                    drop(to_pool.try_send(buffer.unwrap_or_default()));
                }
            });
        }
        for _ in 0..readers {
            let (to_read, to_work) = (to_read.clone(), to_work.clone());
            let (pool, tell) = (pool.clone(), tell.clone());
            scope.spawn(move || {
                for (serial, batch) in to_read {
                    read(context, (serial, batch), &pool, &to_work, &tell);
                }
            });
        }
        let outstanding = HashMap::new();
        Ok(Self { count: workers, readers, range_bytes, batches, news, begun: 0, outstanding })
    }

    /// How many write at once.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// How much each takes at once, in bytes.
    pub(super) fn range_bytes(&self) -> u32 {
        self.range_bytes
    }

    /// Begins a batch. The files of one that was begun before may still be written.
    pub(super) fn begin(&mut self, batch: Batch) -> Begun {
        let (serial, batch) = (self.begun, Arc::new(batch));
        self.begun += 1;
        self.outstanding.insert(serial, Outstanding::default());
        for _ in 0..self.readers {
            // Fails only when all readers panicked, which the end of their scope reports.
            drop(self.batches.send((serial, batch.clone())));
        }
        Begun { serial, batch }
    }

    /// Waits for a batch and gives it back.
    pub(super) fn wait(&mut self, begun: Begun) -> Batch {
        while !self.is_done(begun.serial) {
            // Fails only when all threads panicked, which the end of their scope reports.
            let Ok(news) = self.news.recv() else { break };
            let (News::Read(serial, _) | News::Finished(serial)) = news;
            let Some(outstanding) = self.outstanding.get_mut(&serial) else { continue };
            match news {
                News::Read(_, handed_over) => {
                    outstanding.readers += 1;
                    outstanding.handed_over += handed_over;
                }
                News::Finished(_) => outstanding.finished += 1,
            }
        }
        self.outstanding.remove(&begun.serial);
        Arc::into_inner(begun.batch).expect("threads give a batch back before they say they did")
    }

    fn is_done(&self, serial: u64) -> bool {
        self.outstanding.get(&serial).is_none_or(|outstanding| {
            outstanding.readers == self.readers && outstanding.finished == outstanding.handed_over
        })
    }
}

/// One reader's part of a batch.
fn read(
    context: &Context<'_>,
    (serial, batch): (u64, Arc<Batch>),
    pool: &Receiver<Vec<u8>>,
    to_work: &Sender<Handed>,
    news: &Sender<News>,
) {
    let mut reading = Reading { news, serial, batch: Some(batch), handed_over: 0 };
    while let Some(batch) = &reading.batch {
        let buffer = || pool.try_recv().unwrap_or_default();
        let Some((job, range)) = read_next(context, batch, buffer) else { return };
        let batch = Some(batch.clone());
        let handed = Handed { news: news.clone(), serial, batch, job, range };
        reading.handed_over += 1;
        if to_work.send(handed).is_err() {
            return;
        }
    }
}
