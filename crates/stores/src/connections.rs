//! Never more connections to a store than was said.
//!
//! An HTTP client opens another connection whenever none of its own is free at that moment: also
//! when one is just about to be, and it finishes what it began to open although it needs it no
//! more. So there are as many clients as there may be connections, and each has one request at a
//! time: it never needs a second connection, and keeps the one that it has.
//!
//! A client is free again once its answer was read to the end, or given up, *and* the task behind
//! its connection has noticed. All tasks run on one thread (`bridge.rs`), in the order in which they
//! were woken: so it is enough to stand in line a few times.

use std::{
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore},
    task::yield_now,
};

/// How often whoever gives a client back stands in line: the task behind the connection hears that
/// the answer is over, and the one that puts the connection aside hears it from that one.
const TURNS: usize = 8;

type Make = dyn Fn() -> Result<reqwest::Client, reqwest::Error> + Send + Sync;

/// The clients of a store.
pub(crate) struct Connections {
    make: Box<Make>,
    free: Arc<Semaphore>,
    /// The one used last is at the end: few requests at once need few connections.
    clients: Mutex<Vec<reqwest::Client>>,
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections").field("free", &self.free).finish_non_exhaustive()
    }
}

impl Connections {
    /// At most `most` at once, each through a client that `make` makes when it is needed first.
    ///
    /// # Errors
    /// Fails when the first client cannot be made.
    pub(crate) fn new(
        most: usize,
        make: impl Fn() -> Result<reqwest::Client, reqwest::Error> + Send + Sync + 'static,
    ) -> Result<Arc<Self>, reqwest::Error> {
        let clients = Mutex::new(vec![make()?]);
        let free = Arc::new(Semaphore::new(most.max(1)));
        Ok(Arc::new(Self { make: Box::new(make), free, clients }))
    }

    /// Waits for a client that nobody uses.
    ///
    /// # Errors
    /// Fails when another client cannot be made.
    pub(crate) async fn take(self: &Arc<Self>) -> Result<Lease, reqwest::Error> {
        let permit = Arc::clone(&self.free).acquire_owned().await;
        let permit = permit.expect("the semaphore is never closed");
        let kept = self.clients.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let client = match kept {
            Some(client) => client,
            None => (self.make)()?,
        };
        Ok(Lease { taken: Some((client, permit)), connections: Arc::clone(self) })
    }

    fn give_back(&self, client: reqwest::Client, permit: OwnedSemaphorePermit) {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner).push(client);
        drop(permit);
    }
}

/// A client for one request.
pub(crate) struct Lease {
    taken: Option<(reqwest::Client, OwnedSemaphorePermit)>,
    connections: Arc<Connections>,
}

impl Lease {
    /// The client.
    pub(crate) fn client(&self) -> &reqwest::Client {
        let (client, _) = self.taken.as_ref().expect("a client is given back by the end only");
        client
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some((client, permit)) = self.taken.take() else { return };
        let connections = Arc::clone(&self.connections);
        match Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(async move {
                for _ in 0..TURNS {
                    yield_now().await;
                }
                connections.give_back(client, permit);
            })),
            // No runtime, no task that could still have to notice.
            Err(_) => connections.give_back(client, permit),
        }
    }
}

/// The body of an answer, which keeps its client until it was read.
pub(crate) struct Leased<B> {
    inner: B,
    lease: Option<Lease>,
}

impl<B: Body> Leased<B> {
    /// A body of an answer to the request that `lease` was for, if it was for one.
    pub(crate) fn new(inner: B, lease: Option<Lease>) -> Self {
        let lease = lease.filter(|_| !inner.is_end_stream());
        Self { inner, lease }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Leased<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.get_mut();
        let frame = ready!(Pin::new(&mut this.inner).poll_frame(context));
        if this.inner.is_end_stream() || !matches!(frame, Some(Ok(_))) {
            this.lease = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
