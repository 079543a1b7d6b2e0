//! What must not be believed: a ledger that somebody edited, a second loop, silence.

use std::{collections::BTreeMap, fs, path::Path, sync::Arc, thread};

use jiff::Timestamp;
use muster_model::{Class, Disruption, Fault as _, Verdict};
use muster_operations::{
    error::OperationError,
    keeping, looping, points,
    protect::Selection,
    restore::{self, RestoreRequest},
    status::{gate_report, status},
    workspace::Workspace,
};
use muster_repository::{
    id::SnapshotId,
    repository::Repository,
    restore::Overwrite,
    run::Run,
    storage::{File, LocalStorage},
};
use muster_sources::RestoreSettings;
use muster_testkit::wait_for;
use rusqlite::Connection;

use crate::common::{PASSWORD, PATIENCE, Shop};

#[test]
fn an_edited_ledger_proves_nothing() {
    let shop = Shop::with(
        "edited",
        &[("within: 20s", "within: 1s"), ("{start: [", "{run: [false]}\n      - {start: [")],
    );
    let workspace = shop.protected();
    let drill = shop.drill(&workspace, Disruption::RegionLoss).unwrap();
    assert_eq!(drill.verdict, Verdict::Fail, "{drill:#?}");
    assert!(status(&workspace).is_ok());
    let database = Connection::open(shop.path(".muster/ledger.sqlite3")).unwrap();
    let edit = "DROP TRIGGER entry_no_UPDATE;
                UPDATE entry SET leaf = replace(leaf, '\"verdict\":\"fail\"', '\"verdict\":\"pass\"')
                 WHERE kind = 'drill-ended';";
    database.execute_batch(edit).unwrap();
    assert_eq!(database.changes(), 1);
    let refused = status(&workspace).unwrap_err();
    assert_eq!((refused.class(), refused.code()), (Class::Corrupt, "evidence-mismatch"));
    assert_eq!(gate_report(&workspace, &[], None).unwrap_err().class(), Class::Corrupt);
}

#[test]
fn a_line_has_one_loop() {
    let shop = Shop::open("one-loop");
    let workspace = shop.workspace();
    let run = Run::new();
    let selection = Selection::default();
    thread::scope(|scope| {
        let first = scope.spawn(|| {
            looping::run(&workspace, &selection, looping::LoopOptions::default(), &run, &|_| {})
        });
        let lock = shop.path(".muster/locks/loop_orders_0");
        wait_for("the first loop", PATIENCE, || lock.exists().then_some(())).unwrap();
        let again = Run::new();
        let refused = wait_for("the second loop to be refused", PATIENCE, || {
            looping::run(&workspace, &selection, looping::LoopOptions::default(), &again, &|_| {
                again.cancel.request("enough")
            })
            .err()
        });
        let refused = refused.unwrap();
        let OperationError::Refused { blockers, .. } = &refused else { panic!("{refused}") };
        assert_eq!(blockers[0].code, "loop-under-way");
        run.cancel.request("the test is over");
        first.join().unwrap().unwrap();
    });
}

#[test]
fn a_repository_that_does_not_answer_is_not_an_empty_one() {
    let shop = Shop::open("silent");
    drop(shop.protected());
    fs::write(shop.path("secret"), "wrong\n").unwrap();
    let workspace = shop.workspace();
    let refused = shop.drill(&workspace, Disruption::RegionLoss).unwrap_err();
    let OperationError::Refused { blockers, .. } = &refused else { panic!("{refused}") };
    let codes: Vec<&str> = blockers.iter().map(|blocker| blocker.code).collect();
    assert_eq!(codes, ["repository-silent", "repository-silent"]);
}

#[test]
fn live_data_of_others_is_no_place_to_restore_into() {
    let shop = Shop::open("others");
    let workspace = shop.protected();
    let request = RestoreRequest {
        name: "orders/db".to_owned(),
        to: shop.path("uploads"),
        at: None,
        point: None,
        accept_partial: false,
        settings: RestoreSettings { overwrite: Overwrite::Always, delete: true, verify: false },
    };
    let refused = restore::restore(&workspace, &request, &Run::new()).unwrap_err();
    assert_eq!(refused.class(), Class::Denied, "{refused}");
    assert!(shop.path("uploads/one.txt").exists());
}

#[test]
fn data_is_not_restored_over_itself_while_it_lives() {
    let shop = Shop::open("itself");
    let workspace = shop.protected();
    let refused = |to: &str| {
        let refused = bring_back(&workspace, &shop.path(to), None).unwrap_err();
        let OperationError::Refused { blockers, .. } = &refused else { panic!("{refused}") };
        assert_eq!(blockers[0].code, "target-in-production", "{to}");
        assert!(blockers[0].message.ends_with("is live data of orders/uploads"), "{refused}");
        assert_eq!(refused.class(), Class::Denied);
    };
    refused("uploads");
    refused("uploads/new");
    // Over itself it goes when somebody asks for just that.
    fs::write(shop.path("uploads/one.txt"), "ruined").unwrap();
    let over_itself = |to: &str| {
        let settings =
            RestoreSettings { overwrite: Overwrite::Always, ..RestoreSettings::default() };
        let request = RestoreRequest { settings, ..of_uploads(&shop.path(to), None) };
        restore::restore(&workspace, &request, &Run::new())
    };
    assert_eq!(over_itself("uploads/new").unwrap_err().class(), Class::Denied);
    assert_eq!(over_itself("uploads").unwrap().items.len(), 1);
    assert_ne!(fs::read(shop.path("uploads/one.txt")).unwrap(), b"ruined");
    // What was lost can come back to its place.
    fs::remove_dir_all(shop.path("uploads")).unwrap();
    assert_eq!(bring_back(&workspace, &shop.path("uploads"), None).unwrap().items.len(), 1);
    assert!(shop.path("uploads/one.txt").exists());
    refused("uploads");
}

/// Does what another tool does that rewrites a snapshot in place: its tags stay, its content does
/// not. Gives the id of what is there instead.
fn rewrite(folder: &Path, snapshot: &str, content_of: &str) -> String {
    let storage = Arc::new(LocalStorage::new(folder.to_owned()));
    let repository = Repository::open(storage, PASSWORD.as_bytes(), None).unwrap();
    let read = |id| repository.snapshot(SnapshotId::parse(id).unwrap()).unwrap();
    let mut rewritten = read(snapshot);
    rewritten.tree = read(content_of).tree;
    rewritten.original = SnapshotId::parse(snapshot);
    let id = repository.save_unpacked(File::Snapshot, &rewritten).unwrap();
    fs::remove_file(folder.join("snapshots").join(snapshot)).unwrap();
    id.to_hex()
}

fn bring_back(
    workspace: &Workspace,
    to: &Path,
    point: Option<&str>,
) -> Result<restore::Restoration, OperationError> {
    restore::restore(workspace, &of_uploads(to, point), &Run::new())
}

fn of_uploads(to: &Path, point: Option<&str>) -> RestoreRequest {
    RestoreRequest {
        name: "orders/uploads".to_owned(),
        to: to.to_owned(),
        at: None,
        point: point.map(str::to_owned),
        accept_partial: false,
        settings: RestoreSettings::default(),
    }
}

#[test]
fn a_copy_that_another_tool_altered_is_no_copy_of_its_point() {
    const LINE: &str = "every: 2m, to: near, copy: [far]}";
    let keep = "every: 2m, to: near, copy: [far], keep: {last: 1}}";
    let shop = Shop::with("altered", &[(LINE, keep)]);
    let workspace = shop.protected();
    fs::write(shop.path("uploads/two.txt"), "another invoice\n").unwrap();
    drop(shop.back_up(&workspace));
    let of_uploads = |workspace: &Workspace| {
        let mut listed = points::list(workspace, Some("orders")).unwrap();
        listed.points.retain(|point| point.data == "uploads");
        listed
    };
    let all = of_uploads(&workspace);
    assert!(all.unread.is_empty(), "a true copy was doubted: {:?}", all.unread);
    let [first, second] = &all.points[..] else { panic!("{all:#?}") };
    let at = |point: &muster_model::RecoveryPoint, repository: &str| {
        let mut copies = point.copies.iter();
        copies.find(|copy| copy.repository == repository).unwrap().snapshot.clone()
    };

    let of_database = points::list(&workspace, None).unwrap().points.into_iter();
    let copies = of_database.filter(|point| point.data == "db").flat_map(|point| point.copies);
    let database: BTreeMap<&str, String> = copies
        .map(|copy| (if copy.repository == "near" { "near" } else { "far" }, copy.snapshot))
        .collect();
    let near = rewrite(&shop.path("near"), &at(second, "near"), &at(first, "near"));
    let left = of_uploads(&workspace);
    let named: Vec<_> =
        left.unread.iter().map(|it| (&*it.repository, it.snapshot.clone())).collect();
    assert_eq!(named, [("near", Some(near.clone()))]);
    let told = left.unread[0].to_string();
    assert!(told.contains(&second.id) && told.contains("repo forget --ignore-plan"), "{told}");
    let copies: Vec<&str> = left.points[1].copies.iter().map(|copy| &*copy.repository).collect();
    assert_eq!((&left.points[1].id, copies), (&second.id, vec!["far"]));
    let status = status(&workspace).unwrap();
    assert_eq!((status.worst(), status.unread.len()), (Some(Class::Corrupt), 1));
    let restored = bring_back(&workspace, &shop.path("back"), None).unwrap();
    assert_eq!(restored.items[0].used.repository, "far");
    assert!(shop.path("back/two.txt").exists() || shop.path("back/uploads/two.txt").exists());
    let drill = shop.drill(&workspace, Disruption::ProcessLoss).unwrap();
    let used = drill.points.iter().find(|used| used.data == "uploads").unwrap();
    assert_eq!((drill.verdict, &*used.repository), (Verdict::Pass, "far"), "{drill:#?}");
    assert!(
        drill.findings.iter().any(|finding| finding.message.contains(&near[..8])),
        "{drill:#?}"
    );

    // It fills no count of `keep`, which leaves it alone; what it would have pushed out stays.
    let proposed = keeping::propose(&workspace, "near", &[], Timestamp::now()).unwrap();
    let uploads = proposed.items.iter().find(|item| item.data == "uploads").unwrap();
    let kept: Vec<_> = uploads.keep.iter().map(|kept| kept.snapshot.clone()).collect();
    assert_eq!((kept, uploads.remove.len()), (vec![at(first, "near")], 0), "{uploads:#?}");

    rewrite(&shop.path("far"), &at(second, "far"), &at(first, "far"));
    let older = bring_back(&workspace, &shop.path("older"), None).unwrap();
    assert_eq!(older.items[0].used.point, first.id, "the newest point that is one");
    // When none is left, it is not told that there is none.
    for (repository, content_of) in &database {
        rewrite(&shop.path(repository), &at(first, repository), content_of);
    }
    let refused = bring_back(&workspace, &shop.path("none"), None).unwrap_err();
    assert_eq!((refused.class(), refused.code()), (Class::Corrupt, "repository-damaged"));
    assert!(refused.help().unwrap().contains("repo forget --ignore-plan"), "{refused:?}");

    // Without the record nobody knows what the point held: its tags are believed.
    let elsewhere = Workspace::open(&shop.path("muster.yaml"), &shop.path("new")).unwrap();
    let believed = of_uploads(&elsewhere);
    assert_eq!((believed.points.len(), believed.unread.len()), (2, 0), "{believed:#?}");
}
