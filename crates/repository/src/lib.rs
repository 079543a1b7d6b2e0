//! The backup engine.
pub mod backup;
pub mod check;
pub mod chunker;
pub mod compression;
pub mod copy;
pub mod crypto;
pub mod diff;
pub mod dump;
pub mod environment;
pub mod exclude;
pub mod find;
pub mod format;
pub mod id;
pub mod index;
pub mod keys;
pub mod lock;
pub mod ls;
pub mod packer;
pub mod repository;
pub mod restore;
pub mod run;
pub mod select;
pub mod stats;
pub mod storage;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod tree_walk;
