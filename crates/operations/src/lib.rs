//! The verbs: where decisions meet hands.

pub mod report;
