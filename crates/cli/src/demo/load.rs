//! The shop's customers: they order steadily, and keep the receipts.
//!
//! What was lost in a disaster is known only to those who hold an acknowledgement. After the
//! recovery [`Load::missing`] shows each receipt and asks for that very order. The number alone
//! would not do: a shop that came back without its last orders gives their numbers out again.

use std::{
    io,
    num::NonZeroU32,
    sync::{Arc, Mutex},
    time::Duration,
};

use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use tokio::{
    task::JoinSet,
    time::{Instant, Interval, MissedTickBehavior, interval_at},
};

use super::client::{self, Moment, Stop, Worker, locked};

const N_CUSTOMERS: u32 = 4;

const CUSTOMERS: [&str; N_CUSTOMERS as usize] = ["Ana", "Birk", "Chiara", "Dag"];

const ITEMS: [&str; 5] = ["anchor", "bell", "compass", "lantern", "rope"];

/// Longer than the service waits for its database.
const TIMEOUT: Duration = Duration::from_secs(6);

/// An order that the service has acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Acknowledged {
    /// The order's name, such as `A-000123`.
    pub(crate) number: String,
    /// When the acknowledgement arrived.
    pub(crate) at: Moment,
    /// What the service acknowledged.
    receipt: Value,
}

/// What the customers have seen.
#[derive(Debug, Default)]
struct Seen {
    acknowledged: Vec<Acknowledged>,
    failed: u64,
    first_failure_at: Option<Moment>,
}

impl Seen {
    fn note(&mut self, outcome: Option<Acknowledged>) {
        match outcome {
            Some(order) => self.acknowledged.push(order),
            None => {
                self.failed += 1;
                self.first_failure_at.get_or_insert_with(Moment::now);
            }
        }
    }
}

/// Customers who order until they are stopped, or dropped.
#[derive(Debug)]
pub(crate) struct Load {
    seen: Arc<Mutex<Seen>>,
    worker: Worker,
}

impl Load {
    /// Orders a second, unless one has reason for another number.
    pub(crate) const PER_SECOND: NonZeroU32 = NonZeroU32::new(20).expect("20 is not 0");

    /// Starts to order from the service at `url`. Each customer waits for the answer before the
    /// next order, so a slow service gets fewer.
    ///
    /// # Errors
    ///
    /// The system has no thread or file descriptor left.
    pub(crate) fn start(url: &str, per_second: NonZeroU32) -> io::Result<Self> {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let gap = Duration::from_secs(1) / per_second.get();
        let shop = Shop { http: client::http(TIMEOUT)?, url: format!("{url}/orders") };
        let all = seen.clone();
        let worker = Worker::start("customers", move |stop| crowd(shop, gap, all, stop))?;
        Ok(Self { seen, worker })
    }

    /// The orders acknowledged so far, in the order of their acknowledgement.
    pub(crate) fn acknowledged(&self) -> Vec<Acknowledged> {
        locked(&self.seen).acknowledged.clone()
    }

    /// How many orders were sent and not acknowledged. Some may have been placed all the same.
    pub(crate) fn failed(&self) -> u64 {
        locked(&self.seen).failed
    }

    /// When the first customer was left without an acknowledgement.
    pub(crate) fn first_failure_at(&self) -> Option<Moment> {
        locked(&self.seen).first_failure_at
    }

    /// Sends no more orders, and waits for the answers to those that were sent.
    pub(crate) fn stop(&mut self) {
        self.worker.stop();
    }

    /// Asks the service at `url` for every acknowledged order, and names those that are not
    /// there or not as they were acknowledged.
    ///
    /// # Errors
    ///
    /// The service does not answer for each of them: nothing is known then.
    pub(crate) fn missing(&self, url: &str) -> io::Result<Vec<Acknowledged>> {
        let shop = Shop { http: client::http(TIMEOUT)?, url: format!("{url}/orders") };
        client::wait(async {
            let mut missing = Vec::new();
            for order in self.acknowledged() {
                if !shop.has(&order).await.map_err(io::Error::other)? {
                    missing.push(order);
                }
            }
            Ok(missing)
        })
    }
}

/// All customers at work. They take turns, so that an order goes out after each `gap`.
async fn crowd(shop: Shop, gap: Duration, seen: Arc<Mutex<Seen>>, stop: Stop) {
    let mut crowd = JoinSet::new();
    let mut begin = Instant::now();
    for name in CUSTOMERS {
        let mut ticks = interval_at(begin, gap * N_CUSTOMERS);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        crowd.spawn(customer(name, ticks, shop.clone(), seen.clone(), stop.clone()));
        begin += gap;
    }
    crowd.join_all().await;
}

async fn customer(
    name: &'static str,
    mut ticks: Interval,
    shop: Shop,
    seen: Arc<Mutex<Seen>>,
    mut stop: Stop,
) {
    for (n, item) in (1..).zip(ITEMS.iter().cycle()) {
        tokio::select! {
            biased;
            _ = stop.changed() => break,
            _ = ticks.tick() => {}
        }
        let order = json!({ "customer": name, "item": item, "amount_cents": 100 + n % 10_000 });
        let outcome = shop.order(&order).await;
        locked(&seen).note(outcome);
    }
}

/// The shop as its customers see it.
#[derive(Debug, Clone)]
struct Shop {
    http: Client,
    url: String,
}

impl Shop {
    /// Orders; nothing unless the shop acknowledges what was ordered.
    async fn order(&self, order: &Value) -> Option<Acknowledged> {
        let request = self.http.post(&self.url).header("content-type", "application/json");
        let answer = request.body(order.to_string()).send().await.ok()?;
        let is_placed = answer.status() == StatusCode::CREATED;
        let receipt: Value = serde_json::from_slice(&answer.bytes().await.ok()?).ok()?;
        let number = receipt.get("number")?.as_str()?.to_owned();
        is_placed.then(|| Acknowledged { number, at: Moment::now(), receipt })
    }

    /// Whether the shop has this very order.
    async fn has(&self, order: &Acknowledged) -> reqwest::Result<bool> {
        let answer = self.http.get(format!("{}/{}", self.url, order.number)).send().await?;
        if answer.status() == StatusCode::NOT_FOUND {
            return Ok(false);
        }
        let found = answer.error_for_status()?.bytes().await?;
        Ok(serde_json::from_slice::<Value>(&found).is_ok_and(|found| found == order.receipt))
    }
}
