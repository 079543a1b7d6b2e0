//! A proxy before a server of HTTP: it refuses what a test says, counts, and passes the rest on.

use std::{
    collections::BTreeMap,
    fmt,
    io::{BufReader, Write as _},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use super::rest::read_request;

/// A request that came by: its method, its path with the query, its headers by lower-case names, and
/// how its body begins.
#[derive(Debug, Clone)]
pub struct Seen {
    /// `GET`, `PUT`, …
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Headers.
    pub headers: BTreeMap<String, String>,
    /// The first bytes of the body.
    pub body: Vec<u8>,
}

/// How much of a body is kept.
const BODY_BYTES_MAX: usize = 1024;

/// Gives the status (headers may follow it) and body with which a request is refused, if it is.
type Rule = dyn Fn(&Seen) -> Option<(&'static str, &'static str)> + Send + Sync;

/// A proxy that runs until it is dropped.
pub struct Front {
    state: Arc<State>,
    address: String,
}

struct State {
    target: String,
    rule: Box<Rule>,
    seen: Mutex<Vec<Seen>>,
    ended: AtomicBool,
}

impl fmt::Debug for Front {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Front").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Front {
    /// Starts one before the server at `target`.
    ///
    /// # Panics
    ///
    /// The system has no port.
    pub fn start(
        target: &str,
        rule: impl Fn(&Seen) -> Option<(&'static str, &'static str)> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address").to_string();
        let (target, rule, ended) = (target.to_owned(), Box::new(rule), AtomicBool::new(false));
        let state = Arc::new(State { target, rule, seen: Mutex::default(), ended });
        let served = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming() {
                if served.ended.load(Ordering::SeqCst) {
                    return;
                }
                let state = Arc::clone(&served);
                if let Ok(stream) = stream {
                    thread::spawn(move || serve(stream, &state));
                }
            }
        });
        Self { state, address }
    }

    /// Host and port.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The requests that came so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.state.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.state.ended.store(true, Ordering::SeqCst);
        // Wakes the thread that waits for connections.
        TcpStream::connect(&self.address).ok();
    }
}

/// One request a connection: each answer says that it is the last.
fn serve(mut stream: TcpStream, state: &State) {
    let Ok(reading) = stream.try_clone() else { return };
    let Some(request) = read_request(&mut BufReader::new(reading)) else { return };
    let target = match request.query.as_str() {
        "" => request.path.clone(),
        query => format!("{}?{query}", request.path),
    };
    let body = request.body.iter().take(BODY_BYTES_MAX).copied().collect();
    let seen = Seen { method: request.method, target, headers: request.headers, body };
    state.seen.lock().unwrap_or_else(PoisonError::into_inner).push(seen.clone());
    let answer = match (state.rule)(&seen) {
        Some((status, body)) => {
            let length = body.len();
            let head = "Connection: close\r\nContent-Length:";
            Some(format!("HTTP/1.1 {status}\r\n{head} {length}\r\n\r\n{body}").into_bytes())
        }
        None => pass_on(state, &seen, &request.body),
    };
    stream.write_all(&answer.unwrap_or_default()).ok();
}

fn pass_on(state: &State, seen: &Seen, body: &[u8]) -> Option<Vec<u8>> {
    let own = ["host", "connection", "content-length", "transfer-encoding"];
    let headers = seen.headers.iter().filter(|(name, _)| !own.contains(&name.as_str()));
    let headers: Vec<String> = headers.map(|(name, value)| format!("{name}: {value}")).collect();
    let line = format!("{} {} HTTP/1.1", seen.method, seen.target);
    super::exchange(&state.target, &line, &headers, body).ok()
}
