//! The backup engine.
pub mod backup;
pub mod chunker;
pub mod compression;
pub mod crypto;
pub mod environment;
pub mod exclude;
pub mod format;
pub mod id;
pub mod index;
pub mod keys;
pub mod lock;
pub mod packer;
pub mod repository;
pub mod run;
pub mod select;
pub mod storage;
pub mod tree_walk;
