//! The plan as its users meet it: whole texts in, findings with places out.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod classes;
mod common;
mod diff;
mod examples;
mod judging;
mod lessons;
mod product;
mod robustness;
mod templates;
