//! Placeholder front page.

pub mod chunker;
pub mod format;
