//! Copies on a server: written by the plan's word, and recovered from.

use std::fs;

use muster_model::Verdict;
use muster_testkit::stores::rest::{Options, RestServer};

use crate::common::Shop;

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
