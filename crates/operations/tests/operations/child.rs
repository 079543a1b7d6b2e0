//! What this binary does when a test starts it again: it is the service, or somebody who is
//! killed. Started by the test runner, these do nothing.

use std::{
    env,
    fs::File,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use muster_model::{Disruption, DrillResult};
use muster_operations::{
    drill::{self, DrillRequest},
    error::OperationError,
    protect::{self, Selection, Tools},
    recover::{self, RecoverRequest},
    state::{OnRecord, State},
    story::Silence,
    workspace::Workspace,
};
use muster_repository::run::Run;
use muster_testkit::wait_for;
use nix::sys::signal::{Signal, raise};
use rusqlite::{Connection, OpenFlags};

use crate::common::{Shop, request};

/// The shop's service: `GET /health` is 200 when the database has entries.
///
/// `SHOP_LIFE_MS` ends it badly. `SHOP_SHALLOW` makes it content with a table.
/// `SHOP_ALSO_OPEN` is a file that it keeps open, `SHOP_ALSO_CALL` an address. `SHOP_NEEDS` is a
/// file that it looks into for a moment, and without whose content it does not start.
#[test]
fn serve() {
    let Ok(database) = env::var("SHOP_DB") else { return };
    let port: u16 = env::var("SHOP_PORT").unwrap().parse().unwrap();
    let life = env::var("SHOP_LIFE_MS").map_or(3_600_000, |text| text.parse().unwrap());
    let _open = env::var("SHOP_ALSO_OPEN").ok().map(|path| File::open(path).unwrap());
    let _call = env::var("SHOP_ALSO_CALL").ok().map(|to| TcpStream::connect(to).unwrap());
    if let Ok(path) = env::var("SHOP_NEEDS") {
        assert_ne!(std::fs::read(path).unwrap().len(), 0, "what it needs is empty");
    }
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

/// Somebody who works on a shop and kills itself at the `SHOP_KILL_AT`th passage by the ledger,
/// of which each record has two: before it is written and after. Only records of the kinds in
/// `SHOP_KILL_KINDS` count, when there are any.
#[test]
fn victim() {
    let Ok(deed) = env::var("SHOP_VICTIM") else { return };
    let folder = PathBuf::from(env::var_os("SHOP_FOLDER").unwrap());
    let kill_at: u64 = env::var("SHOP_KILL_AT").unwrap().parse().unwrap();
    let kinds = env::var("SHOP_KILL_KINDS").unwrap();
    let (plan, state) = (folder.join("muster.yaml"), folder.join(".muster"));
    let passed = AtomicU64::new(0);
    let on_record: OnRecord = Box::new(move |kind| {
        let counts = kinds.is_empty() || kinds.split(',').any(|counted| counted == kind);
        if counts && passed.fetch_add(1, Ordering::SeqCst) + 1 == kill_at {
            raise(Signal::SIGKILL).unwrap();
        }
    });
    if deed == "sweep" {
        let mut state = State::open(&state).unwrap();
        state.on_record = Some(on_record);
        drop(Workspace::open_in(&plan, state).unwrap());
        return;
    }
    let mut workspace = Workspace::open(&plan, &state).unwrap();
    workspace.state.on_record = Some(on_record);
    match deed.as_str() {
        "drill" => drop(drill::run(&workspace, &quick(), &Silence, &Run::new()).unwrap()),
        "backup" => {
            let jobs = protect::jobs(&workspace, &Selection::default()).unwrap();
            let report = protect::run_job(&workspace, &Tools::new(), &jobs[0], &Run::new());
            assert!(report.unwrap().is_complete());
        }
        site => drop(recover_to(&workspace, Path::new(site)).unwrap()),
    }
}

fn quick() -> DrillRequest {
    DrillRequest { marking: Duration::ZERO, ..request(Disruption::RegionLoss) }
}

/// Recovers the shop, or goes on with that.
pub(crate) fn recover_to(
    workspace: &Workspace,
    site: &Path,
) -> Result<DrillResult, OperationError> {
    let request = recovery(site);
    let proposal = recover::propose(workspace, &request)?;
    recover::recover(workspace, &request, proposal, &Silence, &Run::new())
}

/// A recovery after the loss of the region.
pub(crate) fn recovery(site: &Path) -> RecoverRequest {
    RecoverRequest {
        service: "orders".to_owned(),
        disruption: Some(Disruption::RegionLoss),
        at: None,
        point: None,
        site: Some(site.to_owned()),
        impact: None,
        cut_off: recover::CutOff::Unknown,
    }
}

/// This binary again, as somebody who works on a shop; `deed` is `drill`, `backup`, `sweep`, or
/// the site of a recovery. All records count as places to be killed at.
pub(crate) fn start_victim(shop: &Shop, deed: &str, kill_at: u64) -> Child {
    start_victim_of(shop, deed, "", kill_at)
}

/// As [`start_victim`], where only records of these kinds count.
pub(crate) fn start_victim_of(shop: &Shop, deed: &str, kinds: &str, kill_at: u64) -> Child {
    Command::new(env::current_exe().unwrap())
        .args(["--exact", "--nocapture", "child::victim"])
        .env("SHOP_VICTIM", deed)
        .env("SHOP_FOLDER", shop.scratch.path())
        .env("SHOP_KILL_AT", kill_at.to_string())
        .env("SHOP_KILL_KINDS", kinds)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Waits for a victim; whether it was killed. One that ended otherwise must have done well.
pub(crate) fn was_killed(victim: Child) -> bool {
    let output = victim.wait_with_output().unwrap();
    let killed = output.status.signal() == Some(9);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(killed || output.status.success(), "{}: {said}", output.status);
    killed
}
