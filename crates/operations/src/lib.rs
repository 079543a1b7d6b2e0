//! The verbs: where decisions meet hands.
//!
//! The crates below this one know how to do single things well: a plan can be judged, a snapshot
//! taken, a process started and ended, an entry signed. `muster-control` decides without touching
//! anything. Here the two meet, and what a user asks for is done: [`protect`] takes recovery
//! points and [`looping`] keeps taking them, [`drill`] rehearses a recovery in isolation and
//! [`recover`] makes it for real, [`restore`] brings data back and nothing else, and [`status`],
//! [`evidence`] and [`reporting`] tell what all of it proves.
//!
//! Three ideas hold it together.
//!
//! *One runbook, two worlds.* A drill, each of its negative controls and a recovery run the same
//! steps by the same code. Only the world differs: which folder, which data, and whether what was
//! started outlives the command. What was never rehearsed is therefore never what runs in earnest.
//!
//! *Written down before it is done.* Every verb works on a [`workspace::Workspace`]: the plan, and
//! a [`state::State`] whose ledger holds what is about to happen before it does: a child before it
//! runs, a target before it exists, a drill before its first step. So a killed process needs no
//! treatment of its own. Opening the workspace again ends exactly the children that the ledger
//! names, removes exactly its targets and settles what was cut off; a recovery goes on at the step
//! where it was. The tests kill drills and recoveries at every write to prove it.
//!
//! *A result is worth what could have contradicted it.* A drill passes when its probes were seen
//! red against an empty target, against damaged data and against a stopped service, its markers
//! were counted in the data that came back, and its clean-up was looked at. What cannot be judged
//! is inconclusive, and a fault of the harness says nothing about the system ([`records`] has all
//! that is kept of it).
//!
//! What does today's state prove?
//!
//! ```no_run
//! use std::path::Path;
//!
//! use muster_operations::{
//!     drill::{self, DrillRequest, MARKING},
//!     error::OperationError,
//!     status::status,
//!     story::Silence,
//!     workspace::Workspace,
//! };
//! use muster_repository::run::Run;
//!
//! # fn main() -> Result<(), OperationError> {
//! let workspace = Workspace::open(Path::new("muster.yaml"), Path::new(".muster"))?;
//! let request = DrillRequest {
//!     service: "orders".to_owned(),
//!     disruption: muster_model::Disruption::RegionLoss,
//!     at: None,
//!     point: None,
//!     marking: MARKING,
//! };
//! let result = drill::run(&workspace, &request, &Silence, &Run::new())?;
//! assert_eq!(result.verdict, muster_model::Verdict::Pass, "{:?}", result.reasons);
//! for cell in status(&workspace)?.matrix {
//!     let measured = cell.measured.rto_s;
//!     assert!(measured.is_none() || measured <= cell.objective.rto_s, "{}", cell.disruption);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! **Invariant**: whatever acts is in the ledger before it acts; whoever ends leaves nothing that the
//! ledger does not name; and nothing passes that was not seen to be able to fail.

pub mod calendar;
pub mod drill;
pub mod error;
pub mod evidence;
mod facts;
mod hands;
pub mod holding;
mod hooks;
pub mod housekeeping;
pub mod keeping;
pub mod looping;
mod markers;
pub mod moment;
mod pause;
pub mod points;
mod postgres;
mod process;
pub mod protect;
pub mod records;
pub mod recover;
pub mod report;
pub mod reporting;
pub mod restore;
pub mod retention;
mod run;
mod runtime;
mod secrets;
pub mod standstill;
pub mod state;
pub mod status;
mod stores;
pub mod story;
mod sweep;
mod unread;
pub mod verify;
pub mod workspace;
