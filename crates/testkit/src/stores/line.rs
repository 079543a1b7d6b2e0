//! A line with a delay before any server: a proxy that hands every byte on a fixed time after it
//! came, and counts connections and bytes. What is under way is hardly bounded, so the delay alone
//! takes nothing from the throughput.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

/// What is handed on in one piece.
const PIECE_BYTES: usize = 64 << 10;

/// How many pieces one direction of a connection holds.
const PIECES: usize = 512;

/// A connection that was closed may be noticed after the next one came: so long is that waited for
/// before more are counted than there may be.
const SETTLE: Duration = Duration::from_millis(100);

/// A proxy that runs until it is dropped.
#[derive(Debug)]
pub struct Line {
    state: Arc<State>,
    address: String,
}

#[derive(Debug)]
struct State {
    target: String,
    delay: Duration,
    open_allowed: AtomicU64,
    open: AtomicU64,
    open_max: AtomicU64,
    bytes_up: AtomicU64,
    bytes_down: AtomicU64,
    ended: AtomicBool,
}

impl Line {
    /// Starts one before the server at `target`; what is sent arrives `delay` later, either way.
    ///
    /// # Panics
    ///
    /// The system has no port.
    pub fn start(target: &str, delay: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address").to_string();
        let zero = AtomicU64::default;
        let state = Arc::new(State {
            target: target.to_owned(),
            delay,
            open_allowed: AtomicU64::new(u64::MAX),
            open: zero(),
            open_max: zero(),
            bytes_up: zero(),
            bytes_down: zero(),
            ended: AtomicBool::new(false),
        });
        let served = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming() {
                if served.ended.load(Ordering::SeqCst) {
                    return;
                }
                if let Ok(stream) = stream {
                    served.connect(stream);
                }
            }
        });
        Self { state, address }
    }

    /// Host and port.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Looks twice before it counts more connections at once than these.
    pub fn allow(&self, connections: u64) {
        self.state.open_allowed.store(connections, Ordering::SeqCst);
    }

    /// How many connections were open at once since it was asked last, at most.
    pub fn take_open_max(&self) -> u64 {
        self.state.open_max.swap(self.state.open.load(Ordering::SeqCst), Ordering::SeqCst)
    }

    /// Bytes that went to the server so far.
    pub fn bytes_up(&self) -> u64 {
        self.state.bytes_up.load(Ordering::SeqCst)
    }

    /// Bytes that came from the server so far.
    pub fn bytes_down(&self) -> u64 {
        self.state.bytes_down.load(Ordering::SeqCst)
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.state.ended.store(true, Ordering::SeqCst);
        // Wakes the thread that waits for connections.
        TcpStream::connect(&self.address).ok();
    }
}

impl State {
    fn connect(self: &Arc<Self>, client: TcpStream) {
        let until = Instant::now() + SETTLE;
        let too_many =
            || self.open.load(Ordering::SeqCst) >= self.open_allowed.load(Ordering::SeqCst);
        while too_many() && Instant::now() < until {
            thread::park_timeout(Duration::from_millis(1));
        }
        let open = self.open.fetch_add(1, Ordering::SeqCst) + 1;
        self.open_max.fetch_max(open, Ordering::SeqCst);
        let streams = TcpStream::connect(&self.target).and_then(|server| {
            client.set_nodelay(true)?;
            server.set_nodelay(true)?;
            Ok((client.try_clone()?, server.try_clone()?, server))
        });
        let Ok((to_client, to_server, server)) = streams else {
            self.open.fetch_sub(1, Ordering::SeqCst);
            return;
        };
        let (up, down) = (Arc::clone(self), Arc::clone(self));
        thread::spawn(move || {
            up.carry(client, to_server, &up.bytes_up, || {
                up.open.fetch_sub(1, Ordering::SeqCst);
            });
        });
        thread::spawn(move || down.carry(server, to_client, &down.bytes_down, || {}));
    }

    /// Takes bytes off one side at once, and gives them to the other when it is time.
    fn carry(&self, mut from: TcpStream, mut to: TcpStream, count: &AtomicU64, ended: impl Fn()) {
        let (sender, pieces) = mpsc::sync_channel::<(Instant, Vec<u8>)>(PIECES);
        let handing_on = thread::spawn(move || {
            for (due, piece) in pieces {
                while let Some(early) = due.checked_duration_since(Instant::now()) {
                    thread::park_timeout(early);
                }
                if to.write_all(&piece).is_err() {
                    break;
                }
            }
            // The end of one direction ends both: HTTP closes a connection as a whole.
            to.shutdown(Shutdown::Both).ok();
        });
        let mut piece = vec![0; PIECE_BYTES];
        while let Ok(bytes) = from.read(&mut piece)
            && bytes > 0
        {
            count.fetch_add(bytes as u64, Ordering::SeqCst);
            if sender.send((Instant::now() + self.delay, piece[..bytes].to_vec())).is_err() {
                break;
            }
        }
        ended();
        drop(sender);
        handing_on.join().ok();
    }
}
