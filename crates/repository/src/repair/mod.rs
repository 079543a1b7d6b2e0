//! Mending a damaged repository with what is left in it.
//!
//! Three steps, each of use by itself:
//!
//! 1. [`packs`]: what is sound in damaged packs goes into new ones, and the damaged ones out of
//!    the index and out of the repository. From here on no backup takes their content for stored.
//! 2. [`index`]: the index is made to say what packs there really are.
//! 3. [`snapshots`]: snapshots that lost something are written anew without it, and it is said
//!    what is lost: which files, which bytes.
//!
//! A full backup between the second and the third step stores again what is still at its source,
//! and then the third has less to cut out.
//!
//! Each step makes a proposal first, which changes nothing and can be shown; applying it has
//! no choices left. What is new is durable, and was read back, before anything old is deleted.
//! A step that was cut off leaves a repository that is no worse than before, and is completed by
//! running it again.
//!
//! # Source
//! restic, `cmd/restic/cmd_repair_index.go`, `cmd_repair_packs.go`, `cmd_repair_snapshots.go`.

pub mod index;
mod index_files;
mod lost;
pub mod packs;
#[cfg(test)]
mod sample;
pub mod snapshots;

pub use self::lost::{Loss, LostRange};
