//! Probes and processes: what observes and acts on the outside world.
//!
//! A drill or a recovery asks services whether they are well, starts programs, ends them again,
//! and looks whether any of them touches production. All of that meets a world that hangs,
//! lies and leaves things behind; this crate is where it is met, so that the rest of Muster gets
//! plain values.
//!
//! | | |
//! |---|---|
//! | [`Prober`](probe::Prober) | asks one probe once: green, red, or *could not ask* |
//! | [`Watch`](watch::Watch) | asks many, each at its own rate, none delaying another |
//! | [`launch`](process::launch) | starts a child that is recorded before it does anything |
//! | [`Child`](process::Child) | a running child; ends with all that it started |
//! | [`end_recorded`](process::end_recorded) | ends what a killed run left behind, and no stranger |
//! | [`Monitor`](isolation::Monitor) | looks all the time whether a child holds something of production's |
//!
//! # A child that is recorded, asked and ended
//!
//! ```
//! use std::{io, time::Duration};
//!
//! use muster_drivers::{
//!     probe::{ProbeSecrets, Prober},
//!     process::{Launch, launch},
//! };
//! use muster_model::{Light, Probe, ProbeCheck};
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let target = tempfile::tempdir()?;
//! let service = Launch {
//!     argv: vec!["sh".into(), "-c".into(), "echo ready > state; sleep 1000".into()],
//!     env: Vec::new(),
//!     user: None,
//!     dir: target.path().to_owned(),
//!     log: target.path().join("log"),
//!     hidden: Vec::new(),
//! };
//! // The program starts only after this has returned: whoever kills us, it is on record.
//! let mut record = None;
//! let mut child = launch(&service, |identity| {
//!     record = Some(identity.clone());
//!     Ok::<(), io::Error>(())
//! })
//! .await?;
//! assert_eq!(record.as_ref(), Some(child.identity()));
//!
//! let probe = Probe {
//!     name: "state".into(),
//!     check: ProbeCheck::Command {
//!         argv: vec!["cat".into(), target.path().join("state").display().to_string()],
//!         exit: 0,
//!         output: Some("ready".into()),
//!     },
//!     on: None,
//!     interval: Duration::from_millis(20),
//!     timeout: Duration::from_secs(5),
//! };
//! let prober = Prober::new()?;
//! while prober.ask(&probe, &ProbeSecrets::default()).await.light != Light::Green {}
//!
//! // The shell and what it started; proven by a look at all processes.
//! assert!(child.end(Duration::from_secs(5)).await?.is_complete());
//! # Ok(())
//! # }
//! ```
//!
//! **Invariant**: every wait has a limit, no detail holds a secret, and no signal reaches a process
//! that Muster did not start.

pub mod isolation;
pub mod probe;
pub mod process;
pub mod watch;

mod text;
