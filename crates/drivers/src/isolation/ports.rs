//! Ports for what a rehearsal or a recovery starts.

use std::{
    collections::VecDeque,
    fs,
    hash::{BuildHasher as _, RandomState},
    io,
    net::{Ipv4Addr, TcpListener},
    ops::RangeInclusive,
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixDatagram},
    },
    sync::Mutex,
};

/// The system's own registry of the ports that it gives to whoever asks for any.
const EPHEMERAL: &str = "/proc/sys/net/ipv4/ip_local_port_range";
/// The ports below which nothing is taken: well-known services and what machines use for their own.
const LOWEST: u16 = 20_000;
/// Kubernetes forwards those above to its services, also where nobody listens: a probe would ask
/// production.
const HIGHEST: u16 = 29_999;
/// Claims that a process holds at once, the latest ones: far more than are between choice and use.
const HELD_MAX: usize = 256;

/// Finds a TCP port on the loopback address that nobody uses, and claims it.
///
/// No other Muster on this machine gets it while this process lives, or until it has asked for
/// 256 more. It is none of those that the kernel gives to outgoing connections, unless those are
/// nearly all. Other programs may take it all the same: the caller that starts a server on it must
/// see to it that the server really listens (its log, its probe).
///
/// # Errors
/// Fails when no port is left.
pub fn free_port() -> io::Result<u16> {
    let ports = below_ephemeral(fs::read_to_string(EPHEMERAL).ok().as_deref());
    let count = ports.end() - ports.start();
    // Somewhere else each time: a port that was in use a moment ago is seldom given again.
    let start = RandomState::new().hash_one(0_u8) % u64::from(count);
    let first = ports.start() + u16::try_from(start).unwrap_or(0);
    for port in (first..=*ports.end()).chain(*ports.start()..first) {
        if let Some(claim) = claim(port)? {
            hold(claim);
            return Ok(port);
        }
    }
    let what = format!("all TCP ports from {} to {} are in use", ports.start(), ports.end());
    Err(io::Error::new(io::ErrorKind::AddrInUse, what))
}

/// Ports that no outgoing connection gets, from the kernel's words: two numbers.
fn below_ephemeral(range: Option<&str>) -> RangeInclusive<u16> {
    let lowest = range.and_then(|text| text.split_whitespace().next()?.parse::<u16>().ok());
    let end = lowest.unwrap_or(u16::MAX).saturating_sub(1).min(HIGHEST);
    // A machine that gives nearly all of them out leaves none apart.
    if end < LOWEST + 1_000 { LOWEST..=HIGHEST } else { LOWEST..=end }
}

/// Claims a port, unless somebody has it or listens there.
///
/// The claim is a name in the same network namespace as the port, and ends with its holder
/// however that ends.
fn claim(port: u16) -> io::Result<Option<UnixDatagram>> {
    let name = SocketAddr::from_abstract_name(format!("muster-port-{port}"))?;
    let claim = match UnixDatagram::bind_addr(&name) {
        Ok(claim) => claim,
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Ok(None),
        Err(error) => return Err(error),
    };
    match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
        Ok(_) => Ok(Some(claim)),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(None),
        Err(error) => Err(error),
    }
}

fn hold(claim: UnixDatagram) {
    static HELD: Mutex<VecDeque<UnixDatagram>> = Mutex::new(VecDeque::new());
    let mut held = HELD.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if held.len() == HELD_MAX {
        held.pop_front();
    }
    held.push_back(claim);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stays_below_what_the_kernel_gives_to_connections() {
        assert_eq!(below_ephemeral(Some("32768\t60999\n")), 20_000..=29_999);
        assert_eq!(below_ephemeral(Some("25000 60999")), 20_000..=24_999);
        assert_eq!(below_ephemeral(Some("1024 65535")), 20_000..=29_999);
        assert_eq!(below_ephemeral(Some("no numbers")), 20_000..=29_999);
        assert_eq!(below_ephemeral(None), 20_000..=29_999);
    }

    #[test]
    fn a_port_is_claimed_once_and_never_where_somebody_listens() {
        let port = free_port().unwrap();
        assert!(claim(port).unwrap().is_none(), "{port} was claimed twice");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let in_use = listener.local_addr().unwrap().port();
        assert!(claim(in_use).unwrap().is_none(), "somebody listens on {in_use}");
    }
}
