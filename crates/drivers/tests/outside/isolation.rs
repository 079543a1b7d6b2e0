//! Breaches of isolation are seen, and nothing else is taken for one.

use std::{
    fs,
    net::{TcpListener, UdpSocket},
    os::unix::net::UnixListener,
    path::Path,
    time::Duration,
};

use muster_drivers::{
    isolation::{
        Breach, Monitor, Monitored, Observer, Production, Touch, free_port, shares_directory,
    },
    process::{Child, Launch, launch},
};
use muster_testkit::{Scratch, peers, wait_for};

use crate::{
    common::{SOON, pid_in, script, start},
    parts::launch_of,
};

const INTERVAL: Duration = Duration::from_millis(20);

/// A production with a database and a target beside it.
fn world(name: &str) -> Scratch {
    let scratch = Scratch::new(name).unwrap();
    fs::create_dir_all(scratch.join("production/deep")).unwrap();
    fs::create_dir(scratch.join("target")).unwrap();
    fs::write(scratch.join("production/deep/db"), "x".repeat(10_000)).unwrap();
    scratch
}

async fn observer(scratch: &Scratch) -> Observer {
    let paths = vec![scratch.join("production")];
    Observer::new(&Production { paths, endpoints: Vec::new() }).await
}

/// Waits for the breach that a child makes; it must be the only kind.
fn breach(observer: &Observer, child: &Child) -> Breach {
    let groups = [child.identity().pgid];
    let breaches = wait_for("a breach", SOON, || {
        let sighting = observer.observe(&groups).unwrap();
        assert_eq!(sighting.unseen, 0);
        (!sighting.breaches.is_empty()).then_some(sighting.breaches)
    });
    breaches.unwrap().remove(0)
}

async fn check(observer: &Observer, wanted: &Launch, expected: Touch) {
    let mut child = start(wanted).await;
    let found = breach(observer, &child);
    assert_eq!(found.what, expected);
    assert!(child.end(SOON).await.unwrap().is_complete());
    assert!(observer.observe(&[child.identity().pgid]).unwrap().breaches.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn files_and_folders_of_productions_are_seen() {
    let scratch = world("files");
    let observer = observer(&scratch).await;
    let target = scratch.join("target");
    let db = scratch.join("production/deep/db");
    fs::hard_link(&db, target.join("hard")).unwrap();
    std::os::unix::fs::symlink(scratch.join("production"), target.join("soft")).unwrap();
    let in_target = |text: &str| script(&target, text);
    let open = Touch::Open(db.clone());
    check(&observer, &in_target("exec sleep 1000 < ../production/deep/db"), open.clone()).await;
    check(&observer, &in_target("exec sleep 1000 < soft/deep/db"), open.clone()).await;
    let grandchild = in_target("setsid sh -c 'exec sleep 1000 < soft/deep/db' & wait");
    check(&observer, &grandchild, open.clone()).await;
    let deleted =
        in_target("cp soft/deep/db soft/tmp; exec 9< soft/tmp; rm soft/tmp; exec sleep 1000");
    check(&observer, &deleted, Touch::Open(scratch.join("production/tmp"))).await;
    let inside = in_target("cd soft/deep; exec sleep 1000");
    let works = Touch::WorkingDirectory(scratch.join("production/deep"));
    check(&observer, &inside, works).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hard_link_to_a_production_file_is_seen() {
    let scratch = world("hard");
    let db = scratch.join("production/deep/db");
    fs::hard_link(&db, scratch.join("target/hard")).unwrap();
    let production = Production { paths: vec![db.clone()], endpoints: Vec::new() };
    let observer = Observer::new(&production).await;
    let wanted = script(&scratch.join("target"), "exec sleep 1000 < hard");
    check(&observer, &wanted, Touch::Open(scratch.join("target/hard"))).await;
    let beside = script(&scratch.join("target"), "exec sleep 1000 > ../production/deep/db-wal");
    check(&observer, &beside, Touch::Open(scratch.join("production/deep/db-wal"))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mapped_file_is_seen() {
    let scratch = world("mapped");
    let program = scratch.join("production/sleep");
    fs::copy("/bin/sleep", &program).unwrap();
    let wanted = script(&scratch.join("target"), "exec ../production/sleep 1000");
    check(&observer(&scratch).await, &wanted, Touch::Mapped(program)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bind_mounts_hide_nothing() {
    let Some(_) = peers::require("unshare") else { return };
    let scratch = world("mounts");
    let observer = observer(&scratch).await;
    fs::create_dir(scratch.join("target/mounted")).unwrap();
    // In a mount namespace of its own: nothing is left mounted.
    let text = "exec unshare -m sh -c '
        mount --bind ../production/deep mounted && echo yes > ok && exec sleep 1000 < mounted/db'";
    let mut child = start(&script(&scratch.join("target"), text)).await;
    let is_allowed = wait_for("the mount", SOON, || {
        scratch
            .join("target/ok")
            .exists()
            .then_some(true)
            .or_else(|| child.try_wait().unwrap().map(|_| false))
    });
    if !is_allowed.unwrap() {
        return;
    }
    let found = breach(&observer, &child);
    assert_eq!(found.what, Touch::Open(scratch.join("target/mounted/db")));
    assert!(child.end(SOON).await.unwrap().is_complete());
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_to_production_are_seen() {
    let scratch = world("connections");
    let target = scratch.join("target");
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let unix = UnixListener::bind(scratch.join("production/socket")).unwrap();
    let postgres = UnixListener::bind(scratch.join("target/.s.PGSQL.5432")).unwrap();
    let (tcp_at, udp_at) = (tcp.local_addr().unwrap(), udp.local_addr().unwrap());
    let endpoints = vec![
        ("localhost".to_owned(), tcp_at.port()),
        ("127.0.0.1".to_owned(), udp_at.port()),
        (target.display().to_string(), 5432),
        ("no-such-host.invalid".to_owned(), 1),
    ];
    let paths = vec![scratch.join("production")];
    let observer = Observer::new(&Production { paths, endpoints }).await;
    assert_eq!(observer.unresolved(), ["no-such-host.invalid:1"]);
    let connecting = |part: &str, to: String| launch_of(&target, part, &to);
    let wanted = connecting("tcp", tcp_at.to_string());
    check(&observer, &wanted, Touch::Connected(tcp_at)).await;
    let wanted = connecting("udp", udp_at.to_string());
    check(&observer, &wanted, Touch::Connected(udp_at)).await;
    let socket = scratch.join("production/socket");
    let wanted = connecting("unix", socket.display().to_string());
    check(&observer, &wanted, Touch::Socket(socket)).await;
    let socket = target.join(".s.PGSQL.5432");
    let wanted = connecting("unix", socket.display().to_string());
    check(&observer, &wanted, Touch::Socket(socket)).await;
    drop((unix, postgres));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_isolated_child_touches_nothing() {
    let scratch = world("isolated");
    fs::write(scratch.join("production-too"), "x").unwrap();
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let production = TcpListener::bind("127.0.0.1:0").unwrap();
    let observer = Observer::new(&Production {
        paths: vec![scratch.join("production")],
        endpoints: vec![("127.0.0.1".to_owned(), production.local_addr().unwrap().port())],
    })
    .await;
    let at = other.local_addr().unwrap().to_string();
    let wanted = launch_of(&scratch.join("target"), "tcp", &at);
    let beside =
        script(&scratch.join("target"), "echo $$ > pid; exec sleep 1000 < ../production-too");
    let (child, second) = (start(&wanted).await, start(&beside).await);
    other.accept().unwrap();
    pid_in(&scratch.join("target/pid"));
    let groups = [child.identity().pgid, second.identity().pgid];
    let sighting = observer.observe(&groups).unwrap();
    assert_eq!(
        (sighting.processes, sighting.unseen, sighting.breaches.as_slice()),
        (2, 0, &[][..])
    );
}

/// Runs a child to its end under a monitor.
async fn monitored(scratch: &Scratch, wanted: &Launch) -> Monitored {
    let monitor = Monitor::start(observer(scratch).await, INTERVAL);
    let watched = |who: &_| {
        monitor.watch(who);
        Ok::<(), std::convert::Infallible>(())
    };
    let mut child = launch(wanted, watched).await.unwrap();
    assert!(child.wait().await.unwrap().success());
    monitor.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn of_25_brief_holders_none_is_missed_and_nobody_else_accused() {
    let scratch = world("brief");
    let guilty = scratch.join("production/deep/db");
    let innocent = scratch.join("target/db");
    fs::write(&innocent, "x").unwrap();
    let run = async |path: &Path| {
        let wanted = launch_of(&scratch.join("target"), "briefly", path.to_str().unwrap());
        let seen = monitored(&scratch, &wanted).await;
        assert!(seen.samples > 0 && seen.failed == 0 && seen.processes_max > 0, "{seen:?}");
        seen
    };
    for round in 0..25 {
        let seen = run(&guilty).await;
        let touched = seen.breaches.iter().any(|breach| breach.what == Touch::Open(guilty.clone()));
        assert!(touched, "round {round}: {seen:?}");
        let seen = run(&innocent).await;
        assert!(seen.breaches.is_empty(), "round {round}: {seen:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_slipped_away_is_still_looked_at() {
    let scratch = world("daemon");
    // Its parents are gone at once; it touches production only later.
    let text = "(setsid sh -c 'sh -c \"echo \\$\\$ > pid; while ! test -e go; do sleep 0.01; done
        exec sleep 1000 < ../production/deep/db\" &' &)";
    let monitor = Monitor::start(observer(&scratch).await, INTERVAL);
    let wanted = script(&scratch.join("target"), text);
    let mut child = launch(&wanted, |who| {
        monitor.watch(who);
        Ok::<(), std::convert::Infallible>(())
    })
    .await
    .unwrap();
    assert!(child.wait().await.unwrap().success());
    fs::write(scratch.join("target/go"), "").unwrap();
    // A look of our own sees it; the monitor looks at least once more before it stops.
    let own = observer(&scratch).await;
    let daemon = pid_in(&scratch.join("target/pid"));
    wait_for("the daemon", SOON, || {
        let session = nix::unistd::getsid(Some(pid_of(daemon))).unwrap();
        let sighting = own.observe(&[session.as_raw().try_into().unwrap()]).unwrap();
        (!sighting.breaches.is_empty()).then_some(())
    })
    .unwrap();
    let seen = monitor.stop();
    assert_eq!(seen.breaches.len(), 1, "{seen:?}");
    assert!(child.end(SOON).await.unwrap().is_complete());
}

fn pid_of(pid: u32) -> nix::unistd::Pid {
    nix::unistd::Pid::from_raw(pid.try_into().unwrap())
}

#[test]
fn shared_directories_are_found_through_mounts() {
    let scratch = world("shares");
    let sources = [scratch.join("elsewhere"), scratch.join("production")];
    assert_eq!(shares_directory(&scratch.join("target"), &sources), None);
    let found = shares_directory(&scratch.join("production/new"), &sources);
    assert_eq!(found, Some(scratch.join("production")));
}

#[test]
fn free_ports_can_be_used() {
    let port = free_port().unwrap();
    assert!(TcpListener::bind(("127.0.0.1", port)).is_ok());
}
