//! A team's year in a minute: two hosts back up at simulated dates into one repository while others
//! forget, prune and copy; credentials, files and a bucket are lost on the way. restic agrees after
//! every season, and with all the copies.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Child, Stdio},
};

use muster_testkit::{
    stores::{
        self,
        rest::{Options, RestServer},
    },
    walker::{Tolerance, assert_same, walk},
};

use crate::{
    sandbox::{PASSWORD, Ran, Sandbox},
    stores::Place,
};

/// Rounds of backups, by two hosts each.
const ROUNDS: u32 = 104;

/// How far rounds are apart: twice a week.
const HOURS: i64 = 84;

/// Rounds of a season, after which everything is looked at.
const SEASON: u32 = 52;

/// Who writes.
const HOSTS: [&str; 2] = ["alpha", "beta"];

/// Brings a host's data to how it is in a round: some files stay, one changes, one comes, one goes.
fn live_on(folder: &Path, host: &str, round: u32) {
    fs::create_dir_all(folder.join("log")).unwrap();
    let write = |name: &str, content: &[u8]| fs::write(folder.join(name), content).unwrap();
    write("same.txt", format!("{host} stays\n").repeat(50).as_bytes());
    write("now.txt", format!("{host} in round {round}\n").repeat(200).as_bytes());
    write(&format!("log/{round}.log"), format!("{host} {round}\n").repeat(30).as_bytes());
    if let Some(old) = round.checked_sub(12) {
        fs::remove_file(folder.join(format!("log/{old}.log"))).unwrap();
    }
    if round.is_multiple_of(26) {
        let mut state = u64::from(round) << 8 | u64::from(host.as_bytes()[0]);
        let noise = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state.to_be_bytes()[0]
        });
        write("noise.bin", &noise.take(700_000).collect::<Vec<u8>>());
    }
}

/// The date of a round.
fn date(round: u32) -> String {
    let first = jiff::civil::datetime(2025, 1, 1, 3, 0, 0, 0);
    let date = first + jiff::Span::new().hours(i64::from(round) * HOURS);
    date.strftime("%Y-%m-%d %H:%M:%S").to_string()
}

struct Team {
    sandbox: Sandbox,
    /// How the data was, by tag, to hold restores against.
    states: BTreeMap<String, PathBuf>,
}

impl Team {
    fn source(&self, host: &str) -> PathBuf {
        self.sandbox.path(&format!("data/{host}"))
    }

    fn start(&self, arguments: &[&str]) -> Child {
        let mut command = self.sandbox.command(arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Both hosts back up at once, and every now and then retention is at work beside them.
    fn round(&mut self, round: u32) {
        let mut running = Vec::new();
        for host in HOSTS {
            let (source, tag) = (self.source(host), format!("{host}-{round}"));
            live_on(&source, host, round);
            let kept = self.sandbox.path(&format!("kept/{tag}"));
            fs::create_dir_all(kept.parent().unwrap()).unwrap();
            let copied =
                std::process::Command::new("cp").arg("-a").arg(&source).arg(&kept).status();
            assert!(copied.unwrap().success());
            self.states.insert(tag.clone(), kept);
            let (source, date) = (source.to_str().unwrap(), date(round));
            let names = ["backup", source, "--host", host, "--tag", &tag, "--time", &date];
            running.push(self.start(&[&names[..], &["--retry-lock", "1m"]].concat()));
        }
        if round % 13 == 12 {
            let keep = ["--keep-last", "2", "--keep-weekly", "6", "--keep-monthly", "12"];
            let grace = ["--prune", "--keep-delete", "0s", "--retry-lock", "1m"];
            running.push(self.start(&[&["forget"], &keep[..], &grace[..]].concat()));
        }
        for child in running {
            Ran::of(child.wait_with_output().unwrap()).expect(0);
        }
    }

    /// restic finds nothing wrong.
    fn restic_agrees(&self) {
        let Some(restic) = self.sandbox.restic() else { return };
        restic.succeed(["check", "--read-data"]).unwrap();
    }

    /// Snapshots by id, with the round's tag and whether they were repaired.
    fn snapshots(&self, run: &dyn Fn(&[&str]) -> Ran) -> Vec<(String, String, bool)> {
        let listed = run(&["--json", "snapshots"]).expect(0).json();
        let read = |snapshot: &serde_json::Value| {
            let tags: Vec<&str> = snapshot["tags"]
                .as_array()
                .unwrap()
                .iter()
                .map(|tag| tag.as_str().unwrap())
                .collect();
            let round = tags.iter().find(|tag| self.states.contains_key(**tag)).unwrap();
            let id = snapshot["id"].as_str().unwrap().to_owned();
            (id, (*round).to_owned(), tags.contains(&"repaired"))
        };
        listed.as_array().unwrap().iter().map(read).collect()
    }

    /// Every snapshot that was never repaired brings back what its host had; tells how many did.
    fn all_restore(&self, run: &dyn Fn(&[&str]) -> Ran) -> usize {
        self.every_restores(1, run)
    }

    /// The same for every n-th of them; tells how many there are.
    fn every_restores(&self, n: usize, run: &dyn Fn(&[&str]) -> Ran) -> usize {
        let mut exact = 0_usize;
        for (id, round, repaired) in self.snapshots(run) {
            if repaired {
                continue;
            }
            exact += 1;
            if !exact.is_multiple_of(n) {
                continue;
            }
            let host = round.split('-').next().unwrap();
            let what = format!("{id}:{}", self.source(host).display());
            let target = self.sandbox.path(&format!("back-{id}"));
            run(&["restore", &what, "--target", target.to_str().unwrap()]).expect(0);
            let kept = walk(&self.states[&round]).unwrap();
            // The target is a folder of the caller's: it keeps what it is.
            let tolerance = Tolerance { ignore_root: true, ..Tolerance::default() };
            assert_same(&kept, &walk(&target).unwrap(), &tolerance);
            fs::remove_dir_all(&target).unwrap();
        }
        exact
    }

    /// Copies everything to another place, as `dress` says who asks.
    fn copy_to(&self, place: &Place) -> Ran {
        let near = self.sandbox.path("repo");
        let mut command = self.sandbox.bare_command(&place.arguments(&[
            "copy",
            "--from-repo",
            near.to_str().unwrap(),
        ]));
        let command = place.dress(&mut command);
        command.env("MUSTER_PASSWORD", PASSWORD).env("MUSTER_FROM_PASSWORD", PASSWORD);
        crate::sandbox::run(command)
    }
}

#[test]
fn a_year_of_backups_losses_and_repairs() {
    let Some(bucket) = stores::s3_with_locks(&["muster"]) else { return };
    let Some(ssh) = stores::ssh() else { return };
    // Says no to some requests, and swallows the answers to others.
    let flaky = RestServer::start(Options { busy_every: 23, mute_every: 41, ..Options::default() });
    let mut team = Team { sandbox: Sandbox::new("year"), states: BTreeMap::new() };
    let held = Place::new(format!("s3:http://{}/muster/held", bucket.address()))
        .login(&[("AWS_ACCESS_KEY_ID", "id"), ("AWS_SECRET_ACCESS_KEY", "hush")]);
    let far = |arguments: String| {
        let mut place = Place::new(format!("sftp:muster-test:{}/far", ssh.folder().display()));
        place.options.push(format!("sftp.args={arguments}"));
        place
    };
    let unreliable = Place::new(format!("rest:{}repo/", flaky.url()));
    let stranger = far(ssh.arguments_of_a_stranger());
    let far = far(ssh.arguments());
    for place in [&held, &far, &unreliable] {
        place.muster(&team.sandbox, &["init"]).expect(0);
    }

    for season in 0..ROUNDS / SEASON {
        for round in 0..SEASON {
            team.round(season * SEASON + round);
        }
        team.restic_agrees();
        for place in [&held, &far, &unreliable] {
            team.copy_to(place).expect(0);
        }
        held.muster(&team.sandbox, &["immutable", "--for", "400d"]).expect(0);
        // Somebody's key was withdrawn: told as such, and nothing of the copy is lost.
        let refused = team.copy_to(&stranger);
        assert_eq!(refused.code, Some(4), "{}", refused.stderr);
    }
    let near = |arguments: &[&str]| team.sandbox.run(arguments);
    let kept = team.all_restore(&near);
    assert!((20..80).contains(&kept), "{kept} snapshots were kept");
    for place in [&held, &far, &unreliable] {
        let there = |arguments: &[&str]| place.muster(&team.sandbox, arguments);
        assert!(team.every_restores(9, &there) >= kept);
        there(&["check", "--read-data"]).expect(0);
    }
    // restic as well; it knows the server's folder by its path.
    let folder = Place::new(ssh.folder().join("far").display().to_string());
    // It gives up when its first request is answered with 503.
    flaky.calm();
    for place in [&held, &folder, &unreliable] {
        place.restic(&team.sandbox, &["check", "--read-data", "--no-lock"]);
    }

    the_data_key_is_rotated(&team, kept);

    // An index file is lost, and made again.
    let indexes = team.sandbox.path("repo/index");
    let index = fs::read_dir(&indexes).unwrap().next().unwrap().unwrap().path();
    fs::remove_file(index).unwrap();
    near(&["check"]).expect(3);
    near(&["repair", "index"]).expect(0);
    near(&["check", "--read-data"]).expect(0);
    team.restic_agrees();
    assert_eq!(team.all_restore(&near), kept);

    half_is_lost(&team, kept);
    the_bucket_is_overwritten(&team, held, &bucket, kept);
}

/// The password and then the data key are changed; the old repository stays of use all the while.
fn the_data_key_is_rotated(team: &Team, kept: usize) {
    let near = |arguments: &[&str]| team.sandbox.run(arguments);
    let new = team.sandbox.path("rotated");
    let rotate = ["key", "rotate", "--into", new.to_str().unwrap()];
    near(&rotate).expect(0);
    near(&[&rotate[..], &["--status"]].concat());
    near(&[&rotate[..], &["--finish"]].concat()).expect(0);
    let rotated = Place::new(new.to_str().unwrap().to_owned());
    let there = |arguments: &[&str]| rotated.muster(&team.sandbox, arguments);
    assert_eq!(team.all_restore(&there), kept);
    there(&["check", "--read-data"]).expect(0);
    rotated.restic(&team.sandbox, &["check", "--read-data"]);
    team.restic_agrees();
}

/// Every second pack is gone. What can be saved is, and the rest is named; then the copy brings all back.
fn half_is_lost(team: &Team, kept: usize) {
    let near = |arguments: &[&str]| team.sandbox.run(arguments);
    let mut packs: Vec<PathBuf> = walk(&team.sandbox.path("repo/data"))
        .unwrap()
        .entries
        .into_keys()
        .map(|path| team.sandbox.path("repo/data").join(String::from_utf8(path).unwrap()))
        .filter(|path| path.is_file())
        .collect();
    packs.sort();
    for pack in packs.iter().step_by(2) {
        fs::remove_file(pack).unwrap();
    }
    near(&["check"]).expect(3);
    near(&["repair", "index"]);
    near(&["repair", "snapshots", "--forget"]);
    near(&["check", "--read-data"]).expect(0);
    team.restic_agrees();
    let saved = team.all_restore(&near);
    assert!(saved < kept, "half of the packs held nothing");
    for host in HOSTS {
        let source = team.source(host);
        near(&[
            "backup",
            source.to_str().unwrap(),
            "--host",
            host,
            "--tag",
            &format!("{host}-{}", ROUNDS - 1),
        ])
        .expect(0);
    }
    team.restic_agrees();
    assert_eq!(team.all_restore(&near), saved + HOSTS.len());
}

/// Somebody with the bucket's own credentials writes rubbish over what can be seen.
fn the_bucket_is_overwritten(team: &Team, mut held: Place, bucket: &stores::Server, kept: usize) {
    let before = crate::immutable::moment();
    for key in crate::immutable::keys(bucket) {
        let answer = crate::immutable::ask(bucket, &format!("PUT /muster/{key}"), b"rubbish");
        assert!(answer.starts_with("HTTP/1.1 200"), "{key}: {answer}");
    }
    held.muster(&team.sandbox, &["snapshots"]).expect(3);
    held.options.push(format!("s3.as-of={before}"));
    let past = |arguments: &[&str]| held.muster(&team.sandbox, arguments);
    past(&["check", "--read-data"]).expect(0);
    assert!(team.every_restores(5, &past) >= kept);
}
