//! Decisions without hands: what to recover from, what was lost, when a service is back, how a
//! drill ended, what is due.
//!
//! Everything here is a function of values. The time is an argument, so a drill that was
//! recorded can be judged again and a test can make any clock jump. Follow a drill from its
//! first decision to its last:
//!
//! - [`choice`] takes the newest recovery point that survives the disruption, or lists what
//!   stands in the way;
//! - [`journal`] says which step of the runbook comes next, also after a crash;
//! - [`hold`] finds the start of the first window in which every probe stayed green;
//! - [`loss`] counts the markers that came back and bounds what was lost;
//! - [`verdict`] judges;
//! - [`retention`] says which snapshots a policy keeps;
//! - [`calendar`] says what is due and what was missed, [`matrix`] what all of it proves today.
//!
//! ```
//! use std::time::Duration;
//! use muster_control::hold::{Hold, Sighting};
//! use muster_model::Light;
//!
//! let at = |s| Duration::from_secs(s);
//! let mut hold = Hold::new(1, Duration::from_secs(10));
//! hold.see(&Sighting { probe: 0, began: at(3), ended: at(3), light: Light::Green });
//! assert_eq!(hold.held_since(), None);
//! hold.see(&Sighting { probe: 0, began: at(13), ended: at(13), light: Light::Green });
//! assert_eq!(hold.held_since(), Some(at(3)));
//! ```
//!
//! **Invariant**: no I/O, no threads, no clock, no randomness: the same events give the same
//! decisions.

pub mod calendar;
pub mod choice;
pub mod hold;
pub mod journal;
pub mod loss;
pub mod matrix;
pub mod retention;
pub mod verdict;
