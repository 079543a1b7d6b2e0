//! What this binary does when a test starts it again: it is the service, or somebody who is
//! killed. Started by the test runner, these do nothing.

use std::{
    env,
    fs::File,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::Path,
    time::Duration,
};

use muster_testkit::wait_for;
use rusqlite::{Connection, OpenFlags};

/// The shop's service: `GET /health` is 200 when the database has entries.
///
/// `SHOP_LIFE_MS` ends it badly. `SHOP_SHALLOW` makes it content with a table.
/// `SHOP_ALSO_OPEN` is a file that it keeps open.
#[test]
fn serve() {
    let Ok(database) = env::var("SHOP_DB") else { return };
    let port: u16 = env::var("SHOP_PORT").unwrap().parse().unwrap();
    let life = env::var("SHOP_LIFE_MS").map_or(3_600_000, |text| text.parse().unwrap());
    let _open = env::var("SHOP_ALSO_OPEN").ok().map(|path| File::open(path).unwrap());
    let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let over = wait_for("the end of the service's life", Duration::from_millis(life), || {
        if let Ok((stream, _)) = listener.accept() {
            drop(answer(stream, Path::new(&database)));
        }
        None::<()>
    });
    eprintln!("the shop closes: {}", over.unwrap_err());
    std::process::abort();
}

fn answer(mut stream: TcpStream, database: &Path) -> std::io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    let mut request = [0; 4096];
    let _length = stream.read(&mut request)?;
    let status = if is_well(database).unwrap_or(false) { "200 OK" } else { "500 Not well" };
    write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
}

fn is_well(database: &Path) -> rusqlite::Result<bool> {
    let connection = Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let question = match env::var_os("SHOP_SHALLOW") {
        Some(_) => "SELECT count(*) >= 0 FROM entry",
        None => "SELECT count(*) > 0 FROM entry",
    };
    connection.query_row(question, [], |row| row.get(0))
}
