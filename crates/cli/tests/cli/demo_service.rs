//! The example service of `muster demo`: what it acknowledges stays, and it is healthy only when
//! its data is.
//!
//! The clients are those of the demo itself, compiled into the tests.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use muster_testkit::{Scratch, wait_for};
use reqwest::Method;
use rusqlite::{Connection, TransactionBehavior};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::sandbox::{PATIENCE, Ran, run};

#[path = "../../src/demo/client.rs"]
mod client;
#[path = "../../src/demo/load.rs"]
pub(crate) mod load;
#[path = "../../src/demo/prober.rs"]
pub(crate) mod prober;

use load::Load;
use prober::Prober;

/// A folder for the shop's data.
pub(crate) struct Shop {
    pub(crate) scratch: Scratch,
}

impl Shop {
    pub(crate) fn new(name: &str) -> Self {
        Self { scratch: Scratch::new(name).unwrap() }
    }

    fn database(&self) -> PathBuf {
        self.scratch.join("orders.db")
    }

    fn uploads(&self) -> PathBuf {
        self.scratch.join("uploads")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_muster"));
        command.arg("demo-service").arg("--database").arg(self.database());
        command.arg("--uploads").arg(self.uploads()).args(arguments).stdin(Stdio::null());
        command
    }

    /// Starts with empty data at any port.
    pub(crate) fn create(&self) -> Service {
        Service::start(&mut self.command(&["--port", "0", "--create"]))
    }

    /// Starts with the data that is there.
    fn start(&self, port: &str) -> Service {
        Service::start(&mut self.command(&["--port", port]))
    }

    /// Changes the database behind the service's back.
    fn tamper(&self, statements: &str) {
        Connection::open(self.database()).unwrap().execute_batch(statements).unwrap();
    }

    fn count(&self, query: &str) -> usize {
        let connection = Connection::open(self.database()).unwrap();
        let count: i64 = connection.query_row(query, [], |row| row.get(0)).unwrap();
        usize::try_from(count).unwrap()
    }
}

/// A service that listens.
pub(crate) struct Service {
    child: Child,
    pub(crate) url: String,
}

impl Service {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.trim_end().strip_prefix("listening on ").unwrap().to_owned();
        Self { child, url }
    }

    fn port(&self) -> &str {
        self.url.rsplit(':').next().unwrap()
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn terminate(&mut self) -> ExitStatus {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
        let ended = || self.child.try_wait().unwrap();
        wait_for("the service to stop", Duration::from_secs(1), ended).unwrap()
    }

    fn get(&self, path: &str) -> (u16, String) {
        self.ask(Method::GET, path, String::new())
    }

    fn json(&self, path: &str) -> Value {
        let (status, body) = self.get(path);
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).unwrap()
    }

    fn order(&self, order: &Value) -> (u16, Value) {
        let (status, body) = self.ask(Method::POST, "/orders", order.to_string());
        (status, serde_json::from_str(&body).unwrap())
    }

    fn ask(&self, method: Method, path: &str, body: String) -> (u16, String) {
        let http = client::http(PATIENCE).unwrap();
        let request = http.request(method, format!("{}{path}", self.url));
        let request = request.header("content-type", "application/json").body(body);
        let answered = client::wait(async {
            let answer = request.send().await.unwrap();
            Ok((answer.status().as_u16(), answer.text().await.unwrap()))
        });
        answered.unwrap()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // It may have ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn rope() -> Value {
    json!({ "customer": "Ana", "item": "rope", "amount_cents": 1250 })
}

/// Waits until so many orders are acknowledged.
pub(crate) fn wait_for_orders(load: &Load, count: usize) {
    let enough = || (load.acknowledged().len() >= count).then_some(());
    wait_for("acknowledged orders", PATIENCE, enough).unwrap();
}

#[test]
fn an_order_is_placed_found_listed_and_invoiced() {
    let shop = Shop::new("demo-order");
    let service = shop.create();
    let (status, order) = service.order(&rope());
    assert_eq!((status, &order["number"]), (201, &json!("A-000001")));
    assert_eq!(order["item"], "rope");
    assert_eq!(service.json("/orders/A-000001"), order);
    assert_eq!(service.json("/orders"), json!({ "orders": [order], "next": "A-000001" }));
    let end = json!({ "orders": [], "next": null });
    assert_eq!(service.json("/orders?after=A-000001"), end);
    let (status, invoice) = service.get("/orders/A-000001/invoice");
    assert_eq!(status, 200);
    assert!(invoice.contains("Customer: Ana\n\nrope: 12.50 EUR\n"), "{invoice}");
    assert_eq!(fs::read_to_string(shop.uploads().join("A-000001.txt")).unwrap(), invoice);
    assert_eq!(service.json("/health"), json!({ "ok": true, "orders": 1, "balance": 0 }));
    assert!(service.get("/").1.contains("<h1>Orders</h1>"));
    for nowhere in ["/orders/A-000002", "/orders/A-000002/invoice", "/orders/..%2Forders.db"] {
        assert_eq!(service.get(nowhere).0, 404, "{nowhere}");
    }
}

#[test]
fn what_cannot_be_ordered_is_refused() {
    let shop = Shop::new("demo-refused");
    let service = shop.create();
    for (field, value) in [
        ("amount_cents", json!(0)),
        ("amount_cents", json!(i64::MAX)),
        ("customer", json!(" ")),
        ("item", json!("x".repeat(101))),
    ] {
        let mut order = rope();
        order[field] = value;
        let (status, body) = service.order(&order);
        assert_eq!(status, 422, "{order}");
        assert!(body["error"].as_str().unwrap().starts_with(field), "{body}");
    }
    assert_eq!(shop.count("SELECT count(*) FROM orders"), 0);
}

#[test]
fn lists_come_in_pages() {
    let shop = Shop::new("demo-pages");
    let service = shop.create();
    service.order(&rope());
    shop.tamper(
        "WITH RECURSIVE n (id) AS (SELECT 2 UNION ALL SELECT id + 1 FROM n WHERE id < 250)
         INSERT INTO orders SELECT id, 'A-' || id, 1, 'bell', 100, 'now' FROM n",
    );
    let (mut after, mut sizes, mut numbers) = (String::new(), Vec::new(), Vec::new());
    loop {
        let page = service.json(&format!("/orders{after}"));
        let orders = page["orders"].as_array().unwrap();
        sizes.push(orders.len());
        numbers.extend(orders.iter().map(|order| order["number"].to_string()));
        let Some(next) = page["next"].as_str() else { break };
        after = format!("?after={next}");
    }
    assert_eq!(sizes, [100, 100, 50, 0]);
    numbers.dedup();
    assert_eq!(numbers.len(), 250);
}

#[test]
fn kill_9_under_load_loses_nothing_that_was_acknowledged() {
    let shop = Shop::new("demo-kill");
    let mut service = shop.create();
    let mut load = Load::start(&service.url, 200.try_into().unwrap()).unwrap();
    wait_for_orders(&load, 50);
    for _ in 0..3 {
        let port = service.port().to_owned();
        let before = load.failed();
        service.kill();
        wait_for("a failure", PATIENCE, || (load.failed() > before).then_some(())).unwrap();
        service = shop.start(&port);
        wait_for_orders(&load, load.acknowledged().len() + 20);
    }
    service.kill();
    load.stop();
    assert!(load.first_failure_at().is_some());

    let service = shop.start("0");
    assert_eq!(load.missing(&service.url).unwrap(), []);
    assert_eq!(service.json("/health")["balance"], 0);
    for order in load.acknowledged() {
        let (status, invoice) = service.get(&format!("/orders/{}/invoice", order.number));
        assert_eq!(status, 200, "{}: {invoice}", order.number);
        assert!(invoice.starts_with(&format!("Invoice {}\n", order.number)), "{invoice}");
    }
}

#[test]
fn lost_orders_are_named_even_when_their_numbers_were_given_out_again() {
    let shop = Shop::new("demo-lost");
    let service = shop.create();
    let mut load = Load::start(&service.url, Load::PER_SECOND).unwrap();
    wait_for_orders(&load, 5);
    load.stop();
    assert_eq!(load.missing(&service.url).unwrap(), []);

    let mut expected = load.acknowledged();
    expected.sort_by(|one, other| one.number.cmp(&other.number));
    let expected = expected.split_off(expected.len() - 2);
    let lost = "(SELECT id FROM orders ORDER BY id DESC LIMIT 2)";
    shop.tamper(&format!(
        "DELETE FROM entries WHERE order_id IN {lost}; DELETE FROM orders WHERE id IN {lost}"
    ));
    let missing = || {
        let mut missing = load.missing(&service.url).unwrap();
        missing.sort_by(|one, other| one.number.cmp(&other.number));
        missing
    };
    assert_eq!(missing(), expected);
    assert_eq!(service.order(&rope()).1["number"], *expected[0].number);
    assert_eq!(missing(), expected);

    service.kill();
    let gone = shop.start("0");
    let url = gone.url.clone();
    gone.kill();
    assert!(load.missing(&url).is_err(), "of a service that is down nothing is known");
}

#[test]
fn a_service_without_its_data_does_not_start() {
    let shop = Shop::new("demo-missing");
    let refused = |arguments: &[&str], text: &str| -> Ran {
        run(&mut shop.command(arguments)).expect(1).tells(text)
    };
    refused(&["--port", "0"], "orders.db is not there").tells("--create");
    assert!(!shop.database().exists(), "and makes none");
    fs::write(shop.database(), "").unwrap();
    refused(&["--port", "0"], "orders.db is empty");
    let error = refused(&["--port", "0", "--json"], "").error();
    assert_eq!(
        (&error["code"], &error["class"]),
        (&"demo-data-missing".into(), &"not-found".into())
    );

    fs::write(shop.database(), "no database at all, but long enough to be read as one").unwrap();
    refused(&["--port", "0"], "cannot open the example's database");

    fs::remove_file(shop.database()).unwrap();
    shop.create().kill();
    shop.start("0").kill();
    fs::remove_dir(shop.uploads()).unwrap();
    refused(&["--port", "0"], "uploads is not there");
}

#[test]
fn a_port_that_is_taken_is_told() {
    let shop = Shop::new("demo-port");
    let service = shop.create();
    let ran = run(&mut shop.command(&["--port", service.port()])).expect(1);
    ran.tells("cannot serve the example at port").tells("choose another port");
}

#[test]
fn health_is_green_only_while_the_books_are_sound() {
    let shop = Shop::new("demo-health");
    let service = shop.create();
    let check = |status: u16, orders: u64, balance: i64| {
        let expected = json!({ "ok": status == 200, "orders": orders, "balance": balance });
        let (found, body) = service.get("/health");
        assert_eq!((found, serde_json::from_str::<Value>(&body).unwrap()), (status, expected));
    };
    check(503, 0, 0);
    service.order(&rope());
    check(200, 1, 0);
    shop.tamper("UPDATE entries SET amount_cents = amount_cents + 1 WHERE account = 'revenue'");
    check(503, 1, 1);
    shop.tamper("UPDATE entries SET amount_cents = amount_cents - 1 WHERE account = 'revenue'");
    check(200, 1, 0);
    // Nothing balances too.
    shop.tamper("DELETE FROM entries");
    check(503, 1, 0);
    shop.tamper("DROP TABLE entries");
    let (status, body) = service.get("/health");
    assert_eq!(status, 503);
    assert!(body.contains("no such table"), "{body}");
}

#[test]
fn the_load_counts_what_the_database_holds_and_keeps_its_pace() {
    let shop = Shop::new("demo-load");
    let service = shop.create();
    let start = Instant::now();
    let mut load = Load::start(&service.url, Load::PER_SECOND).unwrap();
    wait_for_orders(&load, 30);
    load.stop();
    let paced = start.elapsed().as_millis() / 50 + 1;
    let acknowledged = load.acknowledged();
    assert!(acknowledged.len() as u128 <= paced, "{} in {paced} steps", acknowledged.len());
    assert_eq!((load.failed(), load.first_failure_at()), (0, None));
    assert_eq!(shop.count("SELECT count(*) FROM orders"), acknowledged.len());
    assert_eq!(shop.count("SELECT count(*) FROM customers"), 4);
    assert_eq!(shop.count("SELECT count(*) FROM entries"), 2 * acknowledged.len());
    assert_eq!(files(&shop.uploads()), acknowledged.len());
    assert!(acknowledged.is_sorted_by_key(|order| order.at.instant));
    assert!(acknowledged.iter().all(|order| order.at.instant >= start));
    let service_time = |order: &load::Acknowledged| {
        let order = service.json(&format!("/orders/{}", order.number));
        order["at"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap()
    };
    assert!(acknowledged.iter().all(|order| service_time(order) <= order.at.timestamp));
}

fn files(folder: &Path) -> usize {
    fs::read_dir(folder).unwrap().count()
}

#[test]
fn a_prober_sees_when_the_service_went_and_came_back() {
    let shop = Shop::new("demo-prober");
    let service = shop.create();
    service.order(&rope());
    let mut prober = Prober::start(&service.url, Prober::EVERY).unwrap();
    let start = Instant::now();
    let green =
        |after| wait_for("green", PATIENCE, || prober.first_green_after(after)).unwrap().instant;
    assert!(green(start) >= start);
    let port = service.port().to_owned();
    service.kill();
    let killed = Instant::now();
    let red = wait_for("red", PATIENCE, || prober.first_red_after(killed)).unwrap();
    assert_eq!(prober.first_green_after(killed), None);
    let service = shop.start(&port);
    let back = green(killed);
    assert!(back > red.instant);
    assert_eq!(green(killed), back, "the first stays the first");
    prober.stop();
    assert_eq!(prober.first_green_after(Instant::now()), None);
    drop(service);
}

#[test]
fn sigterm_stops_at_once_even_when_somebody_is_connected() {
    let shop = Shop::new("demo-sigterm");
    let mut service = shop.create();
    service.order(&rope());
    let silent = TcpStream::connect(service.url.strip_prefix("http://").unwrap()).unwrap();
    assert_eq!(service.terminate().code(), Some(0));
    drop(silent);

    let mut service = shop.start("0");
    let mut load = Load::start(&service.url, 100.try_into().unwrap()).unwrap();
    wait_for_orders(&load, 20);
    assert_eq!(service.terminate().code(), Some(0));
    load.stop();
    let service = shop.start("0");
    assert_eq!(load.missing(&service.url).unwrap(), []);
}

#[test]
fn sigterm_does_not_wait_for_an_order_that_waits_for_the_database() {
    let shop = Shop::new("demo-sigterm-locked");
    let mut service = shop.create();
    let mut locked = Connection::open(shop.database()).unwrap();
    let lock = locked.transaction_with_behavior(TransactionBehavior::Immediate).unwrap();
    let mut load = Load::start(&service.url, 100.try_into().unwrap()).unwrap();
    // Whoever waits for the database holds the service's connection; health waits for that.
    let http = client::http(Duration::from_millis(100)).unwrap();
    let waits = || {
        let asked = async { Ok(http.get(format!("{}/health", service.url)).send().await) };
        client::wait(asked).unwrap().is_err().then_some(())
    };
    wait_for("an order that waits", PATIENCE, waits).unwrap();
    assert_eq!(service.terminate().code(), Some(0));
    load.stop();
    assert_eq!(load.acknowledged(), []);
    drop(lock);
    assert_eq!(shop.count("SELECT count(*) FROM orders"), 0);
}
