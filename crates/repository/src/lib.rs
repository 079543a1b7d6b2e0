//! The backup engine.
pub mod chunker;
pub mod compression;
pub mod crypto;
pub mod environment;
pub mod format;
pub mod id;
pub mod index;
pub mod repository;
pub mod restore;
pub mod run;
pub mod storage;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
