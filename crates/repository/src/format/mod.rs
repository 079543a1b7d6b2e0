//! Text forms that must equal Go's byte for byte, because restic hashes what Go wrote.
//!
//! A tree is named by the SHA-256 of its JSON. Two programs that describe the same folder with
//! bytes that differ in a single escape store it twice and never find each other's trees again.
//! So this module owns every place where Go's habits show.
//!
//! **Invariant:** nothing in here reads a clock, an environment variable or a file.

pub mod go_json;
pub mod go_quote;
pub mod time;
