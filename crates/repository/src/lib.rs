//! The backup engine.
pub mod crypto;
pub mod id;
pub mod storage;
