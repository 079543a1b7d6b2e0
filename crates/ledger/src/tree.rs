//! The tree in the database: each entry adds its leaf and the subtrees that it completes.
//!
//! An append writes two hashes on average, and every question (a root, a proof) reads a few for
//! each level.

use rusqlite::{Connection, OptionalExtension as _, params};

use crate::error::LedgerError;
use crate::merkle::{Hash, Subtrees, node_hash};

/// The hashes of complete subtrees, as the database keeps them.
pub(crate) struct StoredTree<'a>(pub(crate) &'a Connection);

impl StoredTree<'_> {
    /// Adds the leaf number `index`, which must be the next.
    pub(crate) fn push(&self, index: u64, leaf: Hash) -> Result<(), LedgerError> {
        let (mut level, mut position, mut hash) = (0, index, leaf);
        self.insert(level, position, &hash)?;
        while position & 1 == 1 {
            hash = node_hash(&self.subtree(level, position - 1)?, &hash);
            (level, position) = (level + 1, position >> 1);
            self.insert(level, position, &hash)?;
        }
        Ok(())
    }

    fn insert(&self, level: u32, position: u64, hash: &Hash) -> Result<(), LedgerError> {
        let insert = "INSERT INTO node (level, position, hash) VALUES (?1, ?2, ?3)";
        let run = || {
            let mut statement = self.0.prepare_cached(insert)?;
            statement.execute(params![level, to_sql(position), hash.as_bytes()])
        };
        run().map(drop).map_err(LedgerError::database("append to"))
    }
}

impl Subtrees for StoredTree<'_> {
    type Error = LedgerError;

    fn subtree(&self, level: u32, position: u64) -> Result<Hash, LedgerError> {
        let select = "SELECT hash FROM node WHERE level = ?1 AND position = ?2";
        let run = || {
            let mut statement = self.0.prepare_cached(select)?;
            statement.query_row(params![level, to_sql(position)], |row| row.get(0)).optional()
        };
        let bytes: Option<[u8; 32]> = run().map_err(LedgerError::database("read"))?;
        bytes.map(Hash::new).ok_or_else(|| {
            LedgerError::damaged(format!("node {position} of level {level} is missing"))
        })
    }
}

/// An index as SQLite stores it. Indexes count rows, which never reach 2^63.
pub(crate) fn to_sql(index: u64) -> i64 {
    i64::try_from(index).unwrap_or(i64::MAX)
}
