//! The report: what is proven, what was measured, and what is not known, for people.
//!
//! [`data`] holds what a report says and is its JSON form, [`kpi`] computes its figures,
//! [`html`] and [`markdown`] write it. Nothing here reads a clock or a file: the same data gives
//! the same bytes, so two reports can be compared and a report can be signed.
//!
//! Three rules hold in every form. What nobody measured is "not measured", never a nought and
//! never green. What is assumed says so. Whatever has a colour has a shape and a word as well,
//! for a report is also read in black and white.

pub mod data;
pub mod format;
pub mod html;
pub mod kpi;
pub mod markdown;

mod bars;
mod shapes;
mod words;

pub use data::{Facts, ReportData};

#[cfg(test)]
mod sample;
#[cfg(test)]
mod tests;
