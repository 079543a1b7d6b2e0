//! The recovery plan as code: text to plan and findings, static assessment, schema, diff.

pub mod codes;
pub mod document;
pub mod fit;
pub mod reference;
pub mod template;
pub mod tiers;

mod assess;
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

pub use assess::assess;
pub use diff::{Change, diff};
pub use document::{Facts, Plan};
pub use position::Positions;
pub use read::{Parsed, parse};
pub use schema::schema;
pub use show::{
    Origin, Shown, ShownCopy, ShownObjective, ShownSchedule, ShownService, Term, TermSource, show,
    show_for,
};
pub use starter::{Detected, starter, without_password};
pub use tree::Position;
