//! What must not be believed: a ledger that somebody edited, a second loop, silence.

use std::{fs, thread};

use muster_model::{Class, Disruption, Fault as _, Verdict};
use muster_operations::{
    error::OperationError,
    looping,
    protect::Selection,
    restore::{self, RestoreRequest},
    status::{gate_report, status},
};
use muster_repository::run::Run;
use muster_sources::RestoreSettings;
use muster_testkit::wait_for;
use rusqlite::Connection;

use crate::common::{PATIENCE, Shop};

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
        settings: RestoreSettings {
            overwrite: muster_repository::restore::Overwrite::Always,
            delete: true,
            verify: false,
        },
    };
    let refused = restore::restore(&workspace, &request, &Run::new()).unwrap_err();
    assert_eq!(refused.class(), Class::Denied, "{refused}");
    assert!(shop.path("uploads/one.txt").exists());
}
