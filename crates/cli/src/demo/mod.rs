//! `muster demo`, and the example that it protects, destroys and recovers: a small shop.
//!
//! The shop is a real service, so that what the demo measures is real:
//!
//! - [`orders`]: the data. A SQLite database with customers, orders and a ledger that balances.
//! - [`service`]: the service, `muster demo-service`. HTTP on top of the data, a process of its
//!   own that can be killed.
//! - [`load`]: the customers. They order steadily and remember what was acknowledged to them, so
//!   that afterwards nobody has to guess what was lost.
//! - [`prober`]: somebody outside who only looks whether the service answers.
//! - [`client`]: what the last two share.
//!
//! The demo itself:
//!
//! - [`show`]: the verb, act by act.
//! - [`stage`]: its folder, with two regions and a plan. [`production`]: the service in one.
//! - [`guard`]: a process that cleans up when the demo is killed.
//! - [`story`]: what happens, told with its times. [`outcome`]: the figures at the end.
//! - [`error`]: what can go wrong in the demo itself.
//!
//! **Invariant**: an order is acknowledged only when it would survive `kill -9` and a power cut.

mod client;
mod error;
pub(crate) mod guard;
pub(crate) mod load;
mod orders;
mod outcome;
pub(crate) mod prober;
mod production;
pub(crate) mod service;
pub(crate) mod show;
mod stage;
mod story;
