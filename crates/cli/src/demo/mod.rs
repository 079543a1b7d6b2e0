//! The example that `muster demo` protects, destroys and recovers: a small shop.
//!
//! It is a real service, so that what the demo measures is real:
//!
//! - [`orders`]: the data. A SQLite database with customers, orders and a ledger that balances.
//! - [`service`]: the service, `muster demo-service`. HTTP on top of the data, a process of its
//!   own that can be killed.
//! - [`load`]: the customers. They order steadily and remember what was acknowledged to them, so
//!   that afterwards nobody has to guess what was lost.
//! - [`prober`]: somebody outside who only looks whether the service answers.
//! - [`client`]: what the last two share.
//!
//! **Invariant**: an order is acknowledged only when it would survive `kill -9` and a power cut.

mod client;
#[expect(dead_code, reason = "only `muster demo` and the tests are customers")]
pub(crate) mod load;
mod orders;
#[expect(dead_code, reason = "only `muster demo` and the tests look from outside")]
pub(crate) mod prober;
pub(crate) mod service;
