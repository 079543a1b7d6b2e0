//! What flows to and from a store: limited, and counted.

use std::{
    pin::Pin,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Sleep;

use crate::{
    bucket::{Bucket, Turn},
    stop::{LOOK, Stop, Watch},
};

/// Which way bytes flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Up,
    Down,
}

/// Limits in bytes per second; `None` for none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// To the store.
    pub up: Option<u64>,
    /// From the store.
    pub down: Option<u64>,
}

/// What was done in a store so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Operations that were asked for, repetitions not counted.
    pub operations: u64,
    /// Operations that were tried again.
    pub retries: u64,
    /// Bytes of content sent, those of failed tries included.
    pub bytes_up: u64,
    /// Bytes of content received.
    pub bytes_down: u64,
}

/// Limits and counts what flows, and knows whether it shall; shared by all connections of a store.
#[derive(Debug)]
pub(crate) struct Pace {
    began: Instant,
    up: Option<Mutex<Bucket>>,
    down: Option<Mutex<Bucket>>,
    bytes_up: AtomicU64,
    bytes_down: AtomicU64,
    pub(crate) operations: AtomicU64,
    pub(crate) retries: AtomicU64,
    pub(crate) stop: Stop,
}

impl Pace {
    pub(crate) fn new(limits: Limits, stop: Stop) -> Self {
        let bucket =
            |rate: Option<u64>| rate.map(|rate| Mutex::new(Bucket::new(rate, Duration::ZERO)));
        Self {
            began: Instant::now(),
            up: bucket(limits.up),
            down: bucket(limits.down),
            bytes_up: AtomicU64::new(0),
            bytes_down: AtomicU64::new(0),
            operations: AtomicU64::new(0),
            retries: AtomicU64::new(0),
            stop,
        }
    }

    /// Takes a piece that flows now, and counts it; or tells how long to wait before asking again,
    /// with the same `turn`.
    fn take(&self, way: Way, bytes: usize, turn: &mut Option<Turn>) -> Option<Duration> {
        let bytes = bytes as u64;
        let (counter, bucket) = match way {
            Way::Up => (&self.bytes_up, &self.up),
            Way::Down => (&self.bytes_down, &self.down),
        };
        let wait = bucket.as_ref().and_then(|bucket| {
            let mut bucket = bucket.lock().unwrap_or_else(PoisonError::into_inner);
            bucket.take(self.began.elapsed(), bytes, turn)
        });
        if wait.is_none() {
            counter.fetch_add(bytes, Ordering::Relaxed);
        }
        wait
    }

    /// How many bytes may pass at once. Without a limit, too, there is one: clients may copy what
    /// they are given.
    pub(crate) fn piece_bytes(&self, way: Way) -> usize {
        const UNLIMITED: usize = 256 << 10;
        let bucket = match way {
            Way::Up => &self.up,
            Way::Down => &self.down,
        };
        let piece = |bucket: &Mutex<Bucket>| {
            bucket.lock().unwrap_or_else(PoisonError::into_inner).piece_bytes()
        };
        bucket.as_ref().map_or(UNLIMITED, piece)
    }

    /// The same for threads: waits, but not when the operation shall stop (`false`).
    #[must_use]
    pub(crate) fn pass(&self, way: Way, bytes: usize) -> bool {
        let (piece, mut left) = (self.piece_bytes(way), bytes);
        let watch = self.stop.watch();
        while left > 0 {
            if !self.pass_piece(way, left.min(piece), &watch) {
                return false;
            }
            left -= left.min(piece);
        }
        true
    }

    fn pass_piece(&self, way: Way, bytes: usize, watch: &Watch<'_>) -> bool {
        let mut turn = None;
        while let Some(wait) = self.take(way, bytes, &mut turn) {
            if watch.is_over() {
                return false;
            }
            thread::park_timeout(wait.min(LOOK));
        }
        true
    }

    /// How long bytes may take at most, besides what a store needs to answer.
    pub(crate) fn longest(&self, bytes: usize) -> Duration {
        /// Slower lines than this are taken for broken ones.
        const BYTES_PER_S_MIN: usize = 8 << 10;
        // Others wait in the same bucket: with a limit nobody can tell how long it takes.
        match self.up.is_some() || self.down.is_some() {
            true => Duration::from_secs(24 * 60 * 60),
            false => Duration::from_secs((bytes / BYTES_PER_S_MIN) as u64),
        }
    }

    pub(crate) fn statistics(&self) -> Statistics {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Statistics {
            operations: of(&self.operations),
            retries: of(&self.retries),
            bytes_up: of(&self.bytes_up),
            bytes_down: of(&self.bytes_down),
        }
    }
}

/// A body of a request or an answer that flows no faster than it may.
pub(crate) struct Paced<B> {
    inner: B,
    pace: std::sync::Arc<Pace>,
    way: Way,
    /// Came from `inner`, and did not flow yet.
    left: Bytes,
    /// Its place among those who wait.
    turn: Option<Turn>,
    wait: Option<Pin<Box<Sleep>>>,
}

impl<B> Paced<B> {
    pub(crate) fn new(inner: B, pace: std::sync::Arc<Pace>, way: Way) -> Self {
        Self { inner, pace, way, left: Bytes::new(), turn: None, wait: None }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Paced<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.get_mut();
        loop {
            if let Some(wait) = &mut this.wait {
                ready!(wait.as_mut().poll(context));
                this.wait = None;
            }
            if !this.left.is_empty() {
                let bytes = this.left.len().min(this.pace.piece_bytes(this.way));
                let Some(wait) = this.pace.take(this.way, bytes, &mut this.turn) else {
                    return Poll::Ready(Some(Ok(Frame::data(this.left.split_to(bytes)))));
                };
                this.wait = Some(Box::pin(tokio::time::sleep(wait)));
                continue;
            }
            match ready!(Pin::new(&mut this.inner).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => this.left = data,
                    Err(other) => return Poll::Ready(Some(Ok(other))),
                },
                end => return Poll::Ready(end),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let inner = self.inner.size_hint();
        let left = self.left.len() as u64;
        let mut hint = SizeHint::new();
        hint.set_lower(inner.lower() + left);
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper + left);
        }
        hint
    }
}
