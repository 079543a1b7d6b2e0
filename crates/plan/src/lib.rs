//! The recovery plan as code: from text to a plan, and to all that is wrong with it.
//!
//! A plan that nobody checked is a wish. This crate reads `muster.yaml` and says, with line and
//! column, what cannot be understood and what cannot be kept: an RPO of 15 minutes with hourly
//! backups is an error here and not a surprise later.
//!
//! # The main types
//!
//! | | |
//! |---|---|
//! | [`parse`] → [`Parsed`] | a text read: the [`Plan`] as far as it was understood, all mistakes of the text at once, and where everything stands |
//! | [`assess`] | whether a plan can keep its promises, given what was measured ([`Facts`]) and the time |
//! | [`codes::ALL`] | every finding there is, with a plan that has it and one that does not |
//! | [`template`] | the target filled into runbook and probes: a drill and a recovery differ in nothing else |
//! | [`show`], [`diff()`], [`schema()`], [`starter()`] | a plan spelled out, compared, described to editors, begun |
//!
//! There are two rounds of checks. [`parse`] finds what is wrong with the text whatever was
//! measured: fields, values, names that lead nowhere, templates. [`assess`] finds what is wrong
//! with the plan. A command that only uses a plan needs the first ([`Parsed::is_sound`]);
//! `plan check` prints both.
//!
//! # An hour of backups for a quarter of an hour of loss
//!
//! ```
//! use muster_plan::{Facts, assess, parse};
//!
//! let text = r#"
//! muster: 1
//! name: shop
//! repositories:
//!   near: {url: ./near, password: env:MUSTER_PASSWORD}
//! services:
//!   orders:
//!     objectives: {data-corruption: {rto: 1h, rpo: 15m}}
//!     data: {db: {sqlite: ./orders.db}}
//!     protect:
//!       - {data: db, every: 1h, to: near}
//! "#;
//! let parsed = parse(text);
//! assert!(parsed.is_sound());
//!
//! let plan = parsed.plan.expect("it is sound");
//! let now = "2026-11-20T12:00:00Z".parse().expect("it is a time");
//! let findings = assess(&plan, &parsed.positions, &Facts::default(), now);
//! let found = findings.iter().find(|finding| finding.code == "rpo-unreachable");
//! let found = found.expect("an hour is more than 15 minutes");
//! assert_eq!((found.line, found.column), (11, 27));
//! assert_eq!(found.help.as_deref(), Some("write every: 7m30s or less"));
//! ```
//!
//! **Invariant**: this crate performs no I/O and reads no clock; each finding has a line and a
//! column, and no message repeats a secret.

pub mod codes;
pub mod document;
pub mod fit;
pub mod reference;
pub mod template;
pub mod tiers;

mod assess;
mod classes;
mod decode;
mod diff;
mod fields;
mod position;
mod read;
mod references;
mod report;
mod schema;
mod shape;
mod show;
mod starter;
mod tree;
mod value;

pub use assess::{BUDGET_DEFAULT, assess};
pub use diff::{Change, diff};
pub use document::{Facts, Plan};
pub use fields::store_names;
pub use position::Positions;
pub use read::{Parsed, parse, to_json};
pub use schema::schema;
pub use show::{
    Origin, Said, Shown, ShownCopy, ShownObjective, ShownPolicy, ShownSchedule, ShownService, Term,
    TermSource, show, show_for,
};
pub use starter::{Detected, starter, without_password};
pub use tree::Position;
