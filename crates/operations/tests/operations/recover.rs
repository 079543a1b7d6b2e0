//! Recoveries for real: they stay, they go on where they were, and they are measured from the
//! disruption.

use std::{fs, thread, time::Duration};

use jiff::{SignedDuration, Timestamp};
use muster_model::{Class, Fault as _, Verdict, drill::ClockStart};
use muster_operations::{
    error::OperationError,
    records::Record,
    recover::{self, RecoverRequest},
    story::Silence,
    workspace::Workspace,
};
use muster_repository::run::Run;
use muster_testkit::wait_for;

use crate::{
    child::{recover_to, recovery},
    common::{PATIENCE, Shop, carriers, marks, records},
};

/// Ends what a test recovered.
struct Stopped<'w>(&'w Workspace);

impl Drop for Stopped<'_> {
    fn drop(&mut self) {
        drop(recover::stop(self.0, "orders"));
    }
}

#[test]
fn a_recovery_stays_and_a_second_one_wants_another_site() {
    let shop = Shop::open("recovered");
    let workspace = shop.protected();
    let _stopped = Stopped(&workspace);
    let site = shop.path("site");
    let result = recover_to(&workspace, &site).unwrap();
    assert_eq!((result.verdict, result.number), (Verdict::Pass, 1), "{result:#?}");
    assert_eq!(result.recovery_time.clock_start, ClockStart::Declaration);
    assert_eq!(carriers(&marks(&workspace)).len(), 1);
    assert!(result.evidence.is_some() && site.join("db/shop.db").exists());
    let refused = recover_to(&workspace, &site).unwrap_err();
    let OperationError::Refused { blockers, .. } = &refused else { panic!("{refused}") };
    assert_eq!((refused.class(), blockers[0].code), (Class::Denied, "site-not-empty"));
    assert!(shop.workspace().swept.is_empty(), "a recovery is nobody's litter");
    assert_eq!(carriers(&marks(&workspace)).len(), 1);
}

#[test]
fn an_impact_long_ago_leaves_the_service_its_time_to_come_back() {
    let shop = Shop::with("long-ago", &[("within: 20s", "within: 10s")]);
    let workspace = shop.protected();
    let _stopped = Stopped(&workspace);
    let ago = SignedDuration::from_secs(60);
    // So that there is a point older than the impact.
    let request = RecoverRequest {
        impact: Some(Timestamp::now() - ago),
        disruption: None,
        ..recovery(&shop.path("site"))
    };
    let proposal = recover::propose(&workspace, &request).unwrap();
    let codes: Vec<&str> = proposal.blockers.iter().map(|blocker| blocker.code).collect();
    assert_eq!(codes, ["no-point-that-old", "no-point-that-old"]);
    wait_for("a second to pass", PATIENCE, || {
        (Timestamp::now().duration_since(request.impact.unwrap())
            > ago + SignedDuration::from_secs(11))
        .then_some(())
    })
    .unwrap();
    let mut request = request;
    request.impact = Some(Timestamp::now() - SignedDuration::from_secs(11));
    let proposal = recover::propose(&workspace, &request).unwrap();
    assert!(proposal.blockers.is_empty(), "{:?}", proposal.blockers);
    let result = recover::recover(&workspace, &request, proposal, &Silence, &Run::new()).unwrap();
    assert_eq!(result.verdict, Verdict::Pass, "{result:#?}");
    let took = result.recovery_time.actual_s.unwrap();
    assert!((11.0..30.0).contains(&took), "{took}");
    assert_eq!(result.recovery_time.clock_start, ClockStart::Impact);
    let sum: f64 = result.recovery_time.phases.iter().filter_map(|phase| phase.s).sum();
    assert!((sum - took).abs() < 1e-6);
}

#[test]
fn a_step_that_fails_is_mended_and_resumed() {
    let shop = Shop::open("mended");
    let text = fs::read_to_string(shop.path("muster.yaml")).unwrap();
    let licence = shop.path("licence");
    let step =
        format!("- {{restore: [db, uploads]}}\n      - {{run: [test, -e, {}]}}", licence.display());
    fs::write(shop.path("muster.yaml"), text.replace("- {restore: [db, uploads]}", &step)).unwrap();
    let workspace = shop.protected();
    let _stopped = Stopped(&workspace);
    let site = shop.path("site");
    let failed = recover_to(&workspace, &site).unwrap_err();
    assert_eq!(failed.code(), "step-failed");
    assert!(failed.help().unwrap().contains("--abandon"));
    let restored = fs::metadata(site.join("db/shop.db")).unwrap().modified().unwrap();
    fs::write(licence, "").unwrap();
    let result = recover_to(&workspace, &site).unwrap();
    assert_eq!((result.verdict, result.number), (Verdict::Pass, 1), "{result:#?}");
    assert!(fs::metadata(site.join("db/shop.db")).unwrap().modified().unwrap() >= restored);
    let restores = records(&workspace, &["journal"]).into_iter().filter(
        |record| matches!(record, Record::Journal(line) if line.summary.starts_with("restore")),
    );
    assert_eq!(restores.count(), 2, "begun and ended once");
}

#[test]
fn one_that_is_given_up_leaves_nothing() {
    let step = "- {restore: [db, uploads]}\n      - {run: [\"false\"]}";
    let shop = Shop::with("abandoned", &[("- {restore: [db, uploads]}", step)]);
    let workspace = shop.protected();
    let site = shop.path("site");
    assert!(recover_to(&workspace, &site).is_err());
    let done = recover::abandon(&workspace, "orders").unwrap();
    assert!(!site.exists() && carriers(&marks(&workspace)).is_empty(), "{done:?}");
    let ended = records(&workspace, &["recovery-ended"]);
    let [Record::RecoveryEnded(ended)] = &ended[..] else { panic!("{ended:#?}") };
    assert_eq!(ended.verdict, Verdict::Aborted);
    let nothing = recover::abandon(&workspace, "nobody").unwrap_err();
    assert_eq!(nothing.class(), Class::NotFound);
}

#[test]
fn two_at_once_are_refused() {
    let step = "- {restore: [db, uploads]}\n      - {run: [sleep, \"600\"]}";
    let shop = Shop::with("two", &[("- {restore: [db, uploads]}", step)]);
    let workspace = shop.protected();
    let site = shop.path("site");
    let run = Run::new();
    let request = recovery(&site);
    let early = recover::propose(&workspace, &request).unwrap();
    let mine = recover::propose(&workspace, &request).unwrap();
    thread::scope(|scope| {
        let first = scope.spawn(|| recover::recover(&workspace, &request, mine, &Silence, &run));
        let at_work = || (!carriers(&marks(&workspace)).is_empty()).then_some(());
        wait_for("the first to be at work", PATIENCE, at_work).unwrap();
        let other = shop.workspace();
        let second = recover::recover(&other, &request, early, &Silence, &Run::new()).unwrap_err();
        let OperationError::Refused { blockers, .. } = &second else { panic!("{second}") };
        assert_eq!(blockers[0].code, "recovery-under-way");
        run.cancel.request("Ctrl-C");
        let stopped = first.join().unwrap().unwrap_err();
        assert_eq!(stopped.class(), Class::Interrupted, "{stopped:?}");
    });
    let gone = || carriers(&marks(&workspace)).is_empty().then_some(());
    wait_for("the step to be gone", Duration::from_secs(20), gone).unwrap();
}

#[test]
fn a_program_that_was_cut_off_waits_for_somebody_to_look() {
    let shop = Shop::open("cut-off");
    let text = fs::read_to_string(shop.path("muster.yaml")).unwrap();
    let (count, go) = (shop.path("count"), shop.path("go"));
    let script = format!("echo x >> {}; test -e {} || sleep 600", count.display(), go.display());
    let step = format!("- {{restore: [db, uploads]}}\n      - {{run: [sh, -c, \"{script}\"]}}");
    fs::write(shop.path("muster.yaml"), text.replace("- {restore: [db, uploads]}", &step)).unwrap();
    let workspace = shop.protected();
    let _stopped = Stopped(&workspace);
    let site = shop.path("site");
    let run = Run::new();
    let cancel = run.cancel.clone();
    thread::scope(|scope| {
        scope.spawn(|| {
            wait_for("the program to run", PATIENCE, || count.exists().then_some(())).unwrap();
            cancel.request("the test says so");
        });
        let request = recovery(&site);
        let proposal = recover::propose(&workspace, &request).unwrap();
        let cut = recover::recover(&workspace, &request, proposal, &Silence, &run).unwrap_err();
        assert_eq!(cut.class(), Class::Interrupted, "{cut}");
    });
    fs::write(&go, "").unwrap();
    let unsure = recover_to(&workspace, &site).unwrap_err();
    assert!(unsure.to_string().contains("--cut-off again"), "{unsure}");
    assert_eq!(fs::read_to_string(&count).unwrap().lines().count(), 1, "not run by guess");
    let request = RecoverRequest { cut_off: recover::CutOff::Again, ..recovery(&site) };
    let proposal = recover::propose(&workspace, &request).unwrap();
    let result = recover::recover(&workspace, &request, proposal, &Silence, &Run::new()).unwrap();
    assert_eq!(result.verdict, Verdict::Pass, "{result:#?}");
    assert_eq!(fs::read_to_string(&count).unwrap().lines().count(), 2);
}
