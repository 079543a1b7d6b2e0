//! Copies on a server: written by the plan's word, and recovered from.

use std::{fs, time::Duration};

use jiff::Timestamp;
use muster_model::{Disruption, Fault as _, Verdict};
use muster_operations::{points, protect::JobReport};
use muster_testkit::stores::{
    self, Server,
    rest::{Options, RestServer},
};

use crate::common::{Shop, records};

/// A shop whose copies go to a server that wants a login; `password` is what the shop says.
fn remote_shop(name: &str, server: &RestServer, password: &str) -> Shop {
    let far = format!(
        "{{url: \"rest:{}far/\", credentials: {{RESTIC_REST_USERNAME: file:./user, \
         RESTIC_REST_PASSWORD: file:./login}}, options: {{rest.connections: 3}}, region",
        server.url()
    );
    let shop = Shop::with(name, &[("{url: ./far, region", far.as_str())]);
    fs::write(shop.path("user"), "me\n").unwrap();
    fs::write(shop.path("login"), format!("{password}\n")).unwrap();
    shop
}

fn server() -> RestServer {
    let login = Some(("me".to_owned(), "open sesame".to_owned()));
    RestServer::start(Options { login, ..Options::default() })
}

#[test]
fn a_region_loss_is_survived_by_a_copy_on_a_server() {
    let server = server();
    let shop = remote_shop("remote", &server, "open sesame");
    let workspace = shop.protected();
    let stored = server.files();
    assert!(stored.iter().any(|path| path.starts_with("/far/snapshots/")), "{stored:?}");
    fs::remove_dir_all(shop.path("near")).unwrap();
    let result = shop.check(&workspace, Verdict::Pass, "");
    assert!(!format!("{result:?}").contains("open sesame"));
}

#[test]
fn a_wrong_login_is_told_as_one_and_not_repeated() {
    let server = server();
    let shop = remote_shop("remote-denied", &server, "hush");
    let workspace = shop.workspace();
    let reports = shop.back_up(&workspace);
    assert!(!reports[0].is_complete());
    let text = format!("{reports:?}");
    assert!(text.contains("store-credentials") || text.contains("401 Unauthorized"), "{text}");
    assert!(!text.contains("hush"), "{text}");
}

/// A shop whose copies go to a bucket, held for 30 days as the plan says.
fn held_shop(name: &str, server: &Server) -> Shop {
    let far = format!(
        "{{url: \"s3:http://{}/muster/far\", immutable: 30d, credentials: {{AWS_ACCESS_KEY_ID: \
         file:./user, AWS_SECRET_ACCESS_KEY: file:./login}}, region",
        server.address()
    );
    let objective =
        ("    owner: ana\n", "    owner: ana\n    objectives: {ransomware: {rpo: 1h, rto: 1h}}\n");
    let shop = Shop::with(name, &[("{url: ./far, region", far.as_str()), objective]);
    fs::write(shop.path("user"), "me\n").unwrap();
    fs::write(shop.path("login"), "hush\n").unwrap();
    shop
}

#[test]
fn ransomware_is_survived_by_a_copy_that_the_store_holds() {
    let Some(server) = stores::s3_with_locks(&["muster"]) else { return };
    let shop = held_shop("held", &server);
    let workspace = shop.workspace();
    let reports = shop.back_up(&workspace);
    assert!(reports.iter().all(JobReport::is_complete), "{reports:#?}");
    let held: Vec<_> = records(&workspace, &["hold-ended"]);
    assert_eq!(held.len(), 2, "{held:?}");
    let soon = Timestamp::now() + Duration::from_secs(29 * 86_400);
    let points = points::list(&workspace, None).unwrap().points;
    for copy in points.iter().flat_map(|point| &point.copies) {
        let is_far = copy.repository == "far";
        assert_eq!(copy.immutable_until.is_some_and(|until| until > soon), is_far, "{copy:?}");
    }
    let result = shop.drill(&workspace, Disruption::Ransomware).unwrap();
    assert_eq!(result.verdict, Verdict::Pass, "{result:#?}");
    assert!(result.points.iter().all(|used| used.repository == "far"), "{:?}", result.points);
}

/// Three copies: a folder where the service runs, a server behind SSH and a bucket that holds,
/// elsewhere. Each disruption leaves others.
#[test]
fn each_disruption_is_survived_by_the_copies_that_it_leaves() {
    let Some(bucket) = stores::s3_with_locks(&["muster"]) else { return };
    let Some(ssh) = stores::ssh() else { return };
    let held = format!(
        "  deep: {{url: \"sftp:muster-test:{}/deep\", options: {{sftp.args: \"{}\"}}, region: north, \
         password: file:./secret}}\n  far: {{url: \"s3:http://{}/muster/far\", immutable: 30d, \
         credentials: {{AWS_ACCESS_KEY_ID: file:./user, AWS_SECRET_ACCESS_KEY: file:./user}}, region",
        ssh.folder().display(),
        ssh.arguments(),
        bucket.address()
    );
    let objective =
        ("    owner: ana\n", "    owner: ana\n    objectives: {ransomware: {rpo: 1h, rto: 1h}}\n");
    let changes = [
        ("  far: {url: ./far, region", held.as_str()),
        ("copy: [far]", "copy: [deep, far]"),
        objective,
    ];
    let shop = Shop::with("three-copies", &changes);
    fs::write(shop.path("user"), "me\n").unwrap();
    let workspace = shop.workspace();
    let reports = shop.back_up(&workspace);
    assert!(reports.iter().all(JobReport::is_complete), "{reports:#?}");
    for point in points::list(&workspace, None).unwrap().points {
        let copies = point.copies.iter().map(|copy| (&*copy.repository, copy.immutable));
        let mut copies: Vec<_> = copies.collect();
        copies.sort_unstable();
        assert_eq!(copies, [("deep", false), ("far", true), ("near", false)]);
    }
    let used = |disruption, folder: &str| {
        fs::remove_dir_all(folder).unwrap();
        let result = shop.drill(&workspace, disruption).unwrap();
        assert_eq!(result.verdict, Verdict::Pass, "{result:#?}");
        let used = result.points.into_iter().map(|used| used.repository);
        used.collect::<std::collections::BTreeSet<_>>().into_iter().collect::<Vec<_>>()
    };
    // The folder is gone with its region; then the server is, too.
    let near = shop.path("near");
    assert_eq!(used(Disruption::RegionLoss, near.to_str().unwrap()), ["deep"]);
    let deep = ssh.folder().join("deep");
    assert_eq!(used(Disruption::Ransomware, deep.to_str().unwrap()), ["far"]);
}

/// A bucket without Object Lock takes the copies and cannot hold them: what the plan says does not
/// make them immutable.
#[test]
fn a_copy_that_is_not_held_is_told_and_is_no_choice_after_ransomware() {
    let Some(server) = stores::s3(&["muster"]) else { return };
    let shop = held_shop("not-held", &server);
    let workspace = shop.workspace();
    let reports = shop.back_up(&workspace);
    let report = &reports[0];
    assert!(!report.is_complete() && !report.failed(), "{report:?}");
    assert!(report.copies.iter().all(|copy| copy.snapshot.is_some() && copy.error.is_none()));
    assert!(report.holds.iter().all(|hold| hold.until.is_none() && hold.error.is_some()));
    let codes: Vec<_> = report.failures.iter().map(|failure| failure.error.code()).collect();
    assert_eq!(codes, ["store-cannot-hold"]);
    let points = points::list(&workspace, None).unwrap().points;
    assert!(points.iter().flat_map(|point| &point.copies).all(|copy| !copy.immutable));
    let refused = shop.drill(&workspace, Disruption::Ransomware);
    assert!(format!("{refused:?}").contains("no-surviving-copy"), "{refused:?}");
}

/// A shop whose far copies lie in an archive; `more` is what else the plan says of them.
fn cold_shop(name: &str, server: &Server, more: &str) -> Shop {
    let far = format!(
        "{{url: \"s3:http://{}/muster/far\", options: {{s3.storage-class: GLACIER}}, {more}\
         credentials: {{AWS_ACCESS_KEY_ID: file:./user, AWS_SECRET_ACCESS_KEY: file:./login}}, region",
        server.address()
    );
    let shop = Shop::with(name, &[("{url: ./far, region", far.as_str())]);
    fs::write(shop.path("user"), "me\n").unwrap();
    fs::write(shop.path("login"), "hush\n").unwrap();
    shop
}

#[test]
fn an_archive_is_asked_only_if_the_plan_allows_it() {
    let Some(server) = stores::s3(&["muster"]) else { return };
    let shop = cold_shop("cold-denied", &server, "");
    let workspace = shop.protected();
    // A copy that can be read at once is taken first, and the archive left alone.
    let result = shop.drill(&workspace, Disruption::OperatorError);
    let text = format!("{result:?}");
    assert!(!text.contains("archived"), "{text}");
    let result = shop.drill(&workspace, Disruption::RegionLoss).unwrap();
    assert_ne!(result.verdict, Verdict::Pass, "{result:#?}");
    assert!(format!("{result:?}").contains("archived"), "{result:#?}");
    let unread = result.findings.iter().find(|finding| finding.code == "copy-unread").unwrap();
    let help = unread.help.as_deref().unwrap();
    assert!(help.contains("warm_up") && !help.contains("damage"), "{help}");
}

#[test]
fn a_region_loss_is_survived_by_a_copy_in_an_archive() {
    let Some(server) = stores::s3(&["muster"]) else { return };
    let shop = cold_shop("cold", &server, "warm_up: 1h, ");
    let workspace = shop.protected();
    fs::remove_dir_all(shop.path("near")).unwrap();
    let result = shop.check(&workspace, Verdict::Pass, "");
    assert!(result.points.iter().all(|used| used.repository == "far"), "{:?}", result.points);
}
