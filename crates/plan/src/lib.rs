//! The recovery plan as code: text to plan and findings, static assessment, schema, diff.

pub mod document;

pub use document::Plan;
