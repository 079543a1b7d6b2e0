//! Bodies of requests: whole, or fed piece by piece by the thread that waits for the answer.
//!
//! So a pack is sent from the file that it lies in, and of it a few pieces are in memory. Reading and
//! hashing happen on the thread that feeds, not on the one that moves the bytes of all stores. A body
//! whose feeder ends too early fails, and with it the request: whoever receives it has less than was
//! announced. Limits are not kept here (`pace.rs`).

use std::{
    collections::VecDeque,
    convert::Infallible,
    io,
    pin::Pin,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;

use crate::stop::{LOOK, Watch};

/// How many pieces wait for the line: while one is sent the next is read.
const AHEAD: usize = 2;

/// What a request sends.
#[derive(Debug)]
pub(crate) enum Outflow {
    Whole(Full<Bytes>),
    Fed(Fed),
}

/// The end at which a thread gives pieces.
#[derive(Debug)]
pub(crate) struct Feeder(Arc<Shared>);

/// The end from which they are sent.
#[derive(Debug)]
pub(crate) struct Fed {
    shared: Arc<Shared>,
    left: u64,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    taken: Condvar,
}

#[derive(Debug, Default)]
struct State {
    pieces: VecDeque<Bytes>,
    /// No more pieces come.
    ended: bool,
    /// Nobody wants more: the request is over.
    unwanted: bool,
    waits: Option<Waker>,
}

/// A body of `bytes` bytes, and who feeds it.
pub(crate) fn fed(bytes: u64) -> (Feeder, Outflow) {
    let shared = Arc::new(Shared::default());
    (Feeder(Arc::clone(&shared)), Outflow::Fed(Fed { shared, left: bytes }))
}

impl From<Bytes> for Outflow {
    fn from(content: Bytes) -> Self {
        Self::Whole(Full::new(content))
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Feeder {
    /// Gives the next piece, after a wait for the line; `false` when nobody wants it any more.
    pub(crate) fn push(&self, piece: Vec<u8>, watch: &Watch<'_>) -> bool {
        let mut state = self.0.lock();
        while state.pieces.len() >= AHEAD && !state.unwanted {
            let waited = self.0.taken.wait_timeout(state, LOOK);
            let (next, waited) = waited.unwrap_or_else(PoisonError::into_inner);
            state = next;
            if waited.timed_out() && watch.is_over() {
                return false;
            }
        }
        if state.unwanted {
            return false;
        }
        state.pieces.push_back(Bytes::from(piece));
        wake(state);
        true
    }
}

impl Drop for Feeder {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.ended = true;
        wake(state);
    }
}

fn wake(mut state: MutexGuard<'_, State>) {
    let waits = state.waits.take();
    drop(state);
    if let Some(waker) = waits {
        waker.wake();
    }
}

impl Fed {
    fn poll_piece(&mut self, context: &Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let mut state = self.shared.lock();
        if let Some(piece) = state.pieces.pop_front() {
            drop(state);
            self.shared.taken.notify_one();
            self.left = self.left.saturating_sub(piece.len() as u64);
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        if state.ended {
            return Poll::Ready(Some(Err(io::Error::other("what was to be sent ended early"))));
        }
        state.waits = Some(context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Fed {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.unwanted = true;
        state.pieces.clear();
        drop(state);
        self.shared.taken.notify_one();
    }
}

impl Body for Outflow {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self.get_mut() {
            Self::Whole(whole) => {
                let sure = |never: Infallible| match never {};
                Pin::new(whole).poll_frame(context).map_err(sure)
            }
            Self::Fed(fed) => fed.poll_piece(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(whole) => whole.is_end_stream(),
            Self::Fed(fed) => fed.left == 0,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(whole) => whole.size_hint(),
            Self::Fed(fed) => SizeHint::with_exact(fed.left),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        thread,
    };

    use http_body_util::BodyExt as _;

    use super::*;
    use crate::stop::Stop;

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    #[test]
    fn what_is_fed_is_sent_and_little_of_it_waits() {
        const PIECES: usize = 100;
        let (stop, (feeder, mut body)) = (Stop::default(), fed(10 * PIECES as u64));
        let (given, mut taken) = (AtomicUsize::new(0), 0);
        thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..PIECES {
                    assert!(feeder.push(vec![7; 10], &stop.watch()));
                    given.fetch_add(1, Ordering::SeqCst);
                }
            });
            block_on(async {
                assert_eq!(body.size_hint().exact(), Some(10 * PIECES as u64));
                while let Some(frame) = body.frame().await {
                    assert_eq!(frame.unwrap().into_data().unwrap(), [7; 10].as_slice());
                    taken += 1;
                    let ahead = given.load(Ordering::SeqCst).saturating_sub(taken);
                    assert!(ahead <= AHEAD, "{ahead} pieces wait");
                }
            });
        });
        assert!(taken == PIECES && body.is_end_stream());
    }

    #[test]
    fn a_body_whose_feeder_ends_early_fails() {
        let (stop, (feeder, mut body)) = (Stop::default(), fed(20));
        assert!(feeder.push(vec![7; 10], &stop.watch()));
        drop(feeder);
        block_on(async {
            assert!(body.frame().await.unwrap().is_ok());
            assert!(body.frame().await.unwrap().is_err());
        });
    }

    #[test]
    fn nobody_feeds_a_request_that_is_over() {
        let (stop, (feeder, body)) = (Stop::default(), fed(1000));
        assert!(feeder.push(vec![7; 10], &stop.watch()) && feeder.push(vec![7], &stop.watch()));
        thread::scope(|scope| {
            scope.spawn(|| drop(body));
            assert!(!feeder.push(vec![7; 10], &stop.watch()));
        });
    }
}
