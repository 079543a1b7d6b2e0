//! Which step of a runbook comes next, from its journal alone.
//!
//! A run writes that a step starts, acts, and writes how it ended; each line is durable before
//! the next deed. Whatever the moment of a crash, the journal then shows one of four things for
//! each step, and what to do about a step that was started and never ended is to *look* before
//! acting: it may have happened.

use serde::{Deserialize, Serialize};

/// A line of the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// A run goes on after a crash or a failure; steps that were not done may be tried again.
    Resumed,
    /// A step starts.
    Started {
        /// Its place in the runbook, from 0.
        step: usize,
    },
    /// A step ended.
    Ended {
        /// Its place in the runbook, from 0.
        step: usize,
        /// How.
        outcome: Outcome,
    },
}

/// How a step ended, by observation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum Outcome {
    /// Its effect is there.
    Done,
    /// Its effect is not there, and nothing of it is left half done.
    NotDone {
        /// Why.
        why: String,
    },
    /// It cannot be told.
    Unknown {
        /// Why.
        why: String,
    },
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Start this step.
    Begin(usize),
    /// This step was started and nobody knows how it ended: look, then write down the outcome.
    Observe(usize),
    /// This step was not done; the run ends here unless it is resumed.
    Failed {
        /// The step.
        step: usize,
        /// Why.
        why: String,
    },
    /// Every step is done.
    Finished,
}

/// Reads the journal of a run of `n_steps` steps.
#[must_use]
pub fn next(n_steps: usize, journal: &[Event]) -> Next {
    (0..n_steps).find_map(|step| open_step(step, journal)).unwrap_or(Next::Finished)
}

/// What a step that is not done asks for.
fn open_step(step: usize, journal: &[Event]) -> Option<Next> {
    let mut state = Some(Next::Begin(step));
    for event in journal {
        match event {
            Event::Started { step: started } if *started == step => {
                state = Some(Next::Observe(step));
            }
            Event::Ended { step: ended, outcome } if *ended == step => {
                state = match outcome {
                    Outcome::Done => None,
                    Outcome::NotDone { why } => Some(Next::Failed { step, why: why.clone() }),
                    Outcome::Unknown { .. } => Some(Next::Observe(step)),
                };
            }
            Event::Resumed if matches!(state, Some(Next::Failed { .. })) => {
                state = Some(Next::Begin(step));
            }
            _ => {}
        }
    }
    state
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn started(step: usize) -> Event {
        Event::Started { step }
    }

    fn ended(step: usize, outcome: Outcome) -> Event {
        Event::Ended { step, outcome }
    }

    fn not_done() -> Outcome {
        Outcome::NotDone { why: "no disk".to_owned() }
    }

    fn check(journal: &[Event], expected: Next) {
        assert_eq!(next(2, journal), expected, "{journal:?}");
    }

    #[test]
    fn steps_follow_one_another() {
        check(&[], Next::Begin(0));
        check(&[started(0), ended(0, Outcome::Done)], Next::Begin(1));
        let all = [started(0), ended(0, Outcome::Done), started(1), ended(1, Outcome::Done)];
        check(&all, Next::Finished);
        assert_eq!(next(0, &[]), Next::Finished);
    }

    #[test]
    fn what_may_have_happened_is_looked_at_first() {
        check(&[started(0)], Next::Observe(0));
        check(&[started(0), Event::Resumed], Next::Observe(0));
        let unknown = Outcome::Unknown { why: "no answer".to_owned() };
        check(&[started(0), ended(0, unknown)], Next::Observe(0));
    }

    #[test]
    fn a_step_that_was_not_done_ends_the_run_until_it_is_resumed() {
        let failed = Next::Failed { step: 0, why: "no disk".to_owned() };
        check(&[started(0), ended(0, not_done())], failed);
        check(&[started(0), ended(0, not_done()), Event::Resumed], Next::Begin(0));
        let again = [started(0), ended(0, not_done()), Event::Resumed, started(0)];
        check(&again, Next::Observe(0));
    }

    proptest! {
        /// Cut at any line, a run that goes on by these rules does every step, in order, and
        /// never starts one whose outcome it does not know.
        #[test]
        fn every_cut_is_resumed(n_steps in 0_usize..6, cut in 0_usize..12) {
            let mut journal = Vec::new();
            let mut done = Vec::new();
            let mut crashed = false;
            loop {
                if journal.len() == cut && !crashed {
                    crashed = true;
                    journal.push(Event::Resumed);
                }
                match next(n_steps, &journal) {
                    Next::Begin(step) => journal.push(started(step)),
                    Next::Observe(step) => {
                        done.push(step);
                        journal.push(ended(step, Outcome::Done));
                    }
                    Next::Failed { .. } => unreachable!(),
                    Next::Finished => break,
                }
            }
            prop_assert_eq!(done, (0..n_steps).collect::<Vec<_>>());
        }
    }
}
