//! Placeholder front page.

pub mod chunker;
pub mod exclude;
pub mod format;
