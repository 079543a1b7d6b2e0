//! Who is at the other end of a socket in the file system.
//!
//! `/proc/net/unix` names listeners only. The kernel tells the far ends through its socket
//! diagnostics (what `ss -x` asks), for the network namespace of the asker.
//!
//! # Source
//! sock_diag(7), netlink(7); `linux/unix_diag.h`.

use std::{
    collections::HashMap,
    ffi::OsString,
    io::{self, Read as _},
    os::unix::ffi::OsStringExt as _,
    path::PathBuf,
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};

const AF_NETLINK: i32 = 16;
const AF_UNIX: u8 = 1;
const NETLINK_SOCK_DIAG: i32 = 4;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST_DUMP: u16 = 0x301;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// Names, peers, and who waits to be accepted.
const SHOW: u32 = 1 | 4 | 8;
const UNIX_DIAG_NAME: u16 = 0;
const UNIX_DIAG_PEER: u16 = 2;
const UNIX_DIAG_PENDING: u16 = 3;
const HEADER_BYTES: usize = 16;
const MESSAGE_BYTES: usize = 16;
/// The kernel answers at once or never.
const ANSWER_WITHIN: Duration = Duration::from_millis(200);

/// What is known of a socket.
#[derive(Debug, Default)]
struct Known {
    name: Option<PathBuf>,
    peer: Option<u64>,
}

/// All sockets in the file system by inode.
#[derive(Debug, Default)]
pub(super) struct UnixPeers {
    sockets: HashMap<u64, Known>,
    /// Whom a socket waits for that is not accepted yet.
    pending: HashMap<u64, u64>,
}

impl UnixPeers {
    /// Asks the kernel.
    ///
    /// # Errors
    /// Fails when the kernel has no socket diagnostics or does not let this process ask.
    pub(super) fn ask() -> io::Result<Self> {
        let protocol = Some(Protocol::from(NETLINK_SOCK_DIAG));
        let mut socket = Socket::new(Domain::from(AF_NETLINK), Type::DGRAM, protocol)?;
        socket.set_read_timeout(Some(ANSWER_WITHIN))?;
        socket.send(&request())?;
        let mut peers = Self::default();
        let mut buffer = vec![0; 1 << 16];
        loop {
            let length = socket.read(&mut buffer)?;
            if peers.take(&buffer[..length])? {
                return Ok(peers);
            }
        }
    }

    /// The paths of a socket: its own, and that of its far end.
    pub(super) fn paths(&self, inode: u64) -> impl Iterator<Item = &PathBuf> {
        let own = self.sockets.get(&inode);
        let peer = own.and_then(|own| own.peer).and_then(|peer| self.sockets.get(&peer));
        let listener = self.pending.get(&inode).and_then(|inode| self.sockets.get(inode));
        [own, peer, listener].into_iter().flatten().filter_map(|known| known.name.as_ref())
    }

    /// Takes the messages of a datagram; whether the last one was among them.
    fn take(&mut self, mut rest: &[u8]) -> io::Result<bool> {
        while let Some(length) = u32_at(rest, 0).and_then(|length| usize::try_from(length).ok()) {
            let Some(message) = rest.get(HEADER_BYTES..length) else { break };
            match u16_at(rest, 4) {
                Some(NLMSG_DONE) => return Ok(true),
                Some(NLMSG_ERROR) => return Err(io::ErrorKind::Unsupported.into()),
                _ => self.learn(message),
            }
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        Ok(false)
    }

    /// `family, type, state, pad, inode, cookie[2]`, then attributes.
    fn learn(&mut self, message: &[u8]) {
        let Some(inode) = u32_at(message, 4) else { return };
        let mut known = Known::default();
        let mut rest = message.get(MESSAGE_BYTES..).unwrap_or_default();
        while let (Some(length), Some(kind)) = (u16_at(rest, 0), u16_at(rest, 2)) {
            let length = usize::from(length);
            let Some(value) = rest.get(4..length) else { break };
            match kind {
                UNIX_DIAG_NAME => known.name = path(value),
                UNIX_DIAG_PEER => known.peer = u32_at(value, 0).map(u64::from),
                UNIX_DIAG_PENDING => {
                    let waiting = value.chunks_exact(4).filter_map(|chunk| u32_at(chunk, 0));
                    self.pending
                        .extend(waiting.map(|waiting| (u64::from(waiting), u64::from(inode))));
                }
                _ => {}
            }
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        self.sockets.insert(u64::from(inode), known);
    }
}

/// A name that begins with a zero byte is not in the file system.
fn path(value: &[u8]) -> Option<PathBuf> {
    let name = value.strip_suffix(&[0]).unwrap_or(value);
    (name.first() == Some(&b'/')).then(|| OsString::from_vec(name.to_vec()).into())
}

fn request() -> Vec<u8> {
    let mut body = vec![AF_UNIX, 0, 0, 0];
    for word in [u32::MAX, 0, SHOW, u32::MAX, u32::MAX] {
        body.extend(word.to_ne_bytes());
    }
    let length = u32::try_from(HEADER_BYTES + body.len()).unwrap_or(u32::MAX);
    let mut request = length.to_ne_bytes().to_vec();
    request.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    request.extend(NLM_F_REQUEST_DUMP.to_ne_bytes());
    for word in [1_u32, 0] {
        request.extend(word.to_ne_bytes());
    }
    request.extend(body);
    request
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::{
            fd::AsRawFd as _,
            unix::net::{UnixListener, UnixStream},
        },
    };

    use muster_testkit::Scratch;

    use super::*;

    #[test]
    fn the_far_end_of_a_real_socket_is_known() {
        let scratch = Scratch::new("unix").unwrap();
        let path = scratch.join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let client = UnixStream::connect(&path).unwrap();
        let link = fs::read_link(format!("/proc/self/fd/{}", client.as_raw_fd())).unwrap();
        let inode = link.to_str().unwrap().trim_start_matches("socket:[").trim_end_matches(']');
        let paths = || {
            let peers = UnixPeers::ask().unwrap();
            peers.paths(inode.parse().unwrap()).cloned().collect::<Vec<_>>()
        };
        // Also while it waits to be accepted.
        assert_eq!(paths(), std::slice::from_ref(&path));
        let accepted = listener.accept().unwrap();
        assert_eq!(paths(), std::slice::from_ref(&path));
        drop(accepted);
    }
}
