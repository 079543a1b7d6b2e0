//! How living data becomes a consistent snapshot and comes back: files, SQLite, PostgreSQL, commands.

pub mod capture;
pub mod postgres;
