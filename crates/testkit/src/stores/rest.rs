//! A server of restic's REST protocol in memory, written from its document. It does what
//! rest-server does: it never replaces a file (403), and may refuse deletes (append-only).

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};

/// What a server does.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Refuses to delete anything but locks.
    pub append_only: bool,
    /// Lists in version 1 of the protocol: names without sizes.
    pub version_1: bool,
    /// Wants this user and password.
    pub login: Option<(String, String)>,
    /// Answers every n-th request with 503 before it does anything; 0 for never.
    pub busy_every: u64,
    /// Does every n-th request and closes the connection without an answer; 0 for never.
    pub mute_every: u64,
    /// Answers each request so much later, as a server at a distance does.
    pub delay: Duration,
}

/// What a server does with requests of one kind, from some moment on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// Never answers.
    Silent,
    /// Answers 503 before it does anything.
    Busy,
}

/// A server that runs until it is dropped.
#[derive(Debug)]
pub struct RestServer {
    state: Arc<State>,
    address: String,
}

#[derive(Debug)]
struct State {
    options: Options,
    files: Mutex<BTreeMap<String, Vec<u8>>>,
    requests: AtomicU64,
    /// Requests that came and were not answered, now and at most.
    at_once: AtomicU64,
    at_once_max: AtomicU64,
    mood: Mutex<Option<(Mood, String)>>,
    /// Requests that met the mood.
    troubled: AtomicU64,
    is_calm: AtomicBool,
    ended: AtomicBool,
}

impl RestServer {
    /// Starts one.
    ///
    /// # Panics
    ///
    /// The system has no port.
    pub fn start(options: Options) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address").to_string();
        let state = Arc::new(State {
            options,
            files: Mutex::default(),
            requests: AtomicU64::new(0),
            at_once: AtomicU64::new(0),
            at_once_max: AtomicU64::new(0),
            mood: Mutex::default(),
            troubled: AtomicU64::new(0),
            is_calm: AtomicBool::new(false),
            ended: AtomicBool::new(false),
        });
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

    /// Its URL, with a slash at its end.
    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// Host and port.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// From now on requests that begin so (`METHOD /path`) meet this mood; `None` ends it.
    pub fn set_mood(&self, mood: Option<Mood>, beginning: &str) {
        let mood = mood.map(|mood| (mood, beginning.to_owned()));
        self.state.troubled.store(0, Ordering::SeqCst);
        *self.state.mood.lock().unwrap_or_else(PoisonError::into_inner) = mood;
    }

    /// From now on no request meets trouble by its number: for clients that give up at the first.
    pub fn calm(&self) {
        self.state.is_calm.store(true, Ordering::SeqCst);
    }

    /// How many requests met the mood since it was set.
    pub fn troubled(&self) -> u64 {
        self.state.troubled.load(Ordering::SeqCst)
    }

    /// How many requests came in all.
    pub fn requests(&self) -> u64 {
        self.state.requests.load(Ordering::SeqCst)
    }

    /// How many requests were under way at once since it was asked last, at most.
    pub fn take_requests_at_once(&self) -> u64 {
        self.state.at_once_max.swap(0, Ordering::SeqCst)
    }

    /// The paths of all files, for tests that look at what was really stored.
    pub fn files(&self) -> Vec<String> {
        self.state.lock().keys().cloned().collect()
    }
}

impl Drop for RestServer {
    fn drop(&mut self) {
        self.state.ended.store(true, Ordering::SeqCst);
        // Wakes the thread that waits for connections.
        TcpStream::connect(&self.address).ok();
    }
}

impl State {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Vec<u8>>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn mood_for(&self, request: &Request) -> Option<Mood> {
        let mood = self.mood.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let line = format!("{} {}", request.method, request.path);
        let (mood, _) = mood.filter(|(_, beginning)| line.starts_with(beginning))?;
        self.troubled.fetch_add(1, Ordering::SeqCst);
        Some(mood)
    }
}

pub(super) struct Request {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) query: String,
    pub(super) headers: BTreeMap<String, String>,
    pub(super) body: Vec<u8>,
}

struct Answer {
    status: &'static str,
    headers: Vec<String>,
    body: Vec<u8>,
}

fn answer(status: &'static str) -> Answer {
    Answer { status, headers: Vec::new(), body: Vec::new() }
}

fn serve(stream: TcpStream, state: &State) {
    let Ok(mut to_write) = stream.try_clone() else { return };
    let mut reader = BufReader::new(stream);
    while let Some(request) = read_request(&mut reader) {
        let number = state.requests.fetch_add(1, Ordering::SeqCst) + 1;
        let at_once = state.at_once.fetch_add(1, Ordering::SeqCst) + 1;
        state.at_once_max.fetch_max(at_once, Ordering::SeqCst);
        delay(state.options.delay);
        let is_calm = state.is_calm.load(Ordering::SeqCst);
        let due = |every: u64| !is_calm && every > 0 && number.is_multiple_of(every);
        let mood = state.mood_for(&request);
        if mood == Some(Mood::Silent) {
            state.at_once.fetch_sub(1, Ordering::SeqCst);
            continue;
        }
        let answer = match mood == Some(Mood::Busy) || due(state.options.busy_every) {
            true => answer("503 Service Unavailable"),
            false => handle(state, &request),
        };
        // Before the answer: who has it may ask again at once.
        state.at_once.fetch_sub(1, Ordering::SeqCst);
        if due(state.options.mute_every) {
            return;
        }
        let mut text = format!("HTTP/1.1 {}\r\n", answer.status);
        for header in &answer.headers {
            text.push_str(&format!("{header}\r\n"));
        }
        let is_head = request.method == "HEAD";
        if !answer.headers.iter().any(|header| header.starts_with("Content-Length")) {
            text.push_str(&format!("Content-Length: {}\r\n", answer.body.len()));
        }
        text.push_str("\r\n");
        let body: &[u8] = if is_head { b"" } else { &answer.body };
        if to_write.write_all(text.as_bytes()).and_then(|()| to_write.write_all(body)).is_err() {
            return;
        }
    }
}

fn delay(time: Duration) {
    let until = Instant::now() + time;
    while let Some(left) = until.checked_duration_since(Instant::now()) {
        thread::park_timeout(left);
    }
}

pub(super) fn read_request(reader: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|bytes| *bytes > 0)?;
    let mut words = line.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let line = line.trim();
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':')?;
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let mut body = Vec::new();
    if headers.get("transfer-encoding").is_some_and(|value| value == "chunked") {
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            let bytes = u64::from_str_radix(line.trim(), 16).ok()?;
            reader.take(bytes).read_to_end(&mut body).ok()?;
            reader.read_line(&mut line).ok()?;
            if bytes == 0 {
                break;
            }
        }
    } else {
        let bytes = headers.get("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
        reader.take(bytes).read_to_end(&mut body).ok()?;
        // Cut off on the way: no server keeps that.
        (body.len() as u64 == bytes).then_some(())?;
    }
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    Some(Request { method, path: path.to_owned(), query: query.to_owned(), headers, body })
}

fn handle(state: &State, request: &Request) -> Answer {
    if let Some((user, password)) = &state.options.login {
        let expected = format!("Basic {}", BASE64.encode(format!("{user}:{password}")));
        if request.headers.get("authorization") != Some(&expected) {
            return answer("401 Unauthorized");
        }
    }
    let path = request.path.as_str();
    let mut files = state.lock();
    match request.method.as_str() {
        "POST" if request.query == "create=true" => answer("200 OK"),
        "GET" if path.ends_with('/') => list(state, &files, request),
        "HEAD" | "GET" => match files.get(path) {
            Some(content) => read(request, content),
            None => answer("404 Not Found"),
        },
        "POST" if files.contains_key(path) => answer("403 Forbidden"),
        "POST" => {
            files.insert(path.to_owned(), request.body.clone());
            answer("200 OK")
        }
        "DELETE" if state.options.append_only && !path.contains("/locks/") => {
            answer("403 Forbidden")
        }
        "DELETE" => match files.remove(path) {
            Some(_) => answer("200 OK"),
            None => answer("404 Not Found"),
        },
        _ => answer("405 Method Not Allowed"),
    }
}

fn list(state: &State, files: &BTreeMap<String, Vec<u8>>, request: &Request) -> Answer {
    let wants_2 = request.headers.get("accept").is_some_and(|accept| accept.contains("rest.v2"));
    let is_2 = wants_2 && !state.options.version_1;
    let here = files
        .iter()
        .filter_map(|(path, content)| Some((path.strip_prefix(&request.path)?, content.len())));
    let entries: Vec<String> = here
        .filter(|(name, _)| !name.contains('/'))
        .map(|(name, bytes)| match is_2 {
            true => format!(r#"{{"name":"{name}","size":{bytes}}}"#),
            false => format!(r#""{name}""#),
        })
        .collect();
    let version = if is_2 { "v2" } else { "v1" };
    Answer {
        status: "200 OK",
        headers: vec![format!("Content-Type: application/vnd.x.restic.rest.{version}")],
        body: format!("[{}]", entries.join(",")).into_bytes(),
    }
}

fn read(request: &Request, content: &[u8]) -> Answer {
    let whole = || Answer {
        status: "200 OK",
        headers: vec![format!("Content-Length: {}", content.len())],
        body: content.to_vec(),
    };
    let range = request.headers.get("range").and_then(|range| range.strip_prefix("bytes="));
    let Some((first, last)) = range.and_then(|range| range.split_once('-')) else {
        return whole();
    };
    let (Ok(first), last) = (first.parse::<usize>(), last.parse::<usize>()) else {
        return answer("400 Bad Request");
    };
    if first >= content.len() {
        return answer("416 Range Not Satisfiable");
    }
    let end = last.map_or(content.len(), |last| content.len().min(last.saturating_add(1)));
    Answer {
        status: "206 Partial Content",
        headers: vec![format!("Content-Range: bytes {first}-{}/{}", end - 1, content.len())],
        body: content[first..end].to_vec(),
    }
}
