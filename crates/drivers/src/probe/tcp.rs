//! `tcp` probes: does somebody accept?

use tokio::net::TcpStream;

use super::trouble::Trouble;

/// Connects to `host:port`, and hangs up.
pub(super) async fn ask(address: &str) -> Result<String, Trouble> {
    match TcpStream::connect(address).await {
        Ok(_) => Ok("connected".to_owned()),
        Err(error) => Err(Trouble::of(&error)),
    }
}
