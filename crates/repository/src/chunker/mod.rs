//! Chunker (being written elsewhere).
mod polynomial;
pub use polynomial::Polynomial;
