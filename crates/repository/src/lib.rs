//! Placeholder front page.

pub mod format;
