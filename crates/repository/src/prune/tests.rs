//! Decisions of a prune; what it does to repositories stands in `tests/engine/prune.rs`.
