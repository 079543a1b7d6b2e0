//! The two ends of sockets, from the tables in `/proc/PID/net`.

use std::{
    collections::HashMap,
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

/// A socket with a far end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Connection {
    pub(super) near: SocketAddr,
    pub(super) far: SocketAddr,
}

/// All connections that a process's network knows, by the inode of their socket.
pub(super) fn connections_around(pid: u32) -> HashMap<u64, Connection> {
    let mut found = HashMap::new();
    for table in ["tcp", "tcp6", "udp", "udp6"] {
        let text = fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default();
        found.extend(text.lines().skip(1).filter_map(parse));
    }
    found
}

/// # Source
/// proc_pid_net(5): `SLOT: NEAR FAR STATE … INODE`, the inode in the tenth column.
fn parse(line: &str) -> Option<(u64, Connection)> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let inode: u64 = fields.get(9)?.parse().ok()?;
    let (near, far) = (address(fields.get(1)?)?, address(fields.get(2)?)?);
    (inode != 0 && far.port() != 0).then_some((inode, Connection { near, far }))
}

/// `0100007F:1F90`: words of 32 bits in this machine's order, and the port.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let mut bytes = Vec::with_capacity(16);
    for at in (0..ip.len()).step_by(8) {
        let word = u32::from_str_radix(ip.get(at..at + 8)?, 16).ok()?;
        bytes.extend(word.to_ne_bytes());
    }
    let ip = match bytes.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(bytes).ok().map(Ipv4Addr::from)?),
        _ => IpAddr::from(<[u8; 16]>::try_from(bytes).ok().map(Ipv6Addr::from)?),
    };
    Some(SocketAddr::new(ip.to_canonical(), port))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn both_ends_of_a_real_connection_are_seen() {
        for host in ["127.0.0.1", "::1"] {
            let Ok(listener) = TcpListener::bind((host, 0)) else { continue };
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let near = client.local_addr().unwrap();
            let far = client.peer_addr().unwrap();
            let found = connections_around(std::process::id());
            assert!(found.values().any(|seen| *seen == Connection { near, far }), "{host}");
        }
    }

    #[test]
    fn listeners_have_no_far_end() {
        let line = "0: 0100007F:1F90 00000000:0000 0A 0:0 00:0 00000000 0 0 4242 1";
        assert_eq!(parse(line), None);
        assert_eq!(parse("sl local_address"), None);
    }
}
