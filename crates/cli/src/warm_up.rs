//! The flags that allow to bring archived packs back, and what is told of that.
//!
//! What is needed, and how long to wait, is the engine's business (`warm_up`).

use std::time::Duration;

use muster_model::units::{agree, counted, format_duration, format_size, parse_duration};
use muster_repository::{
    prune::Amount,
    run::Run,
    warm_up::{AT_MOST_DEFAULT, Event, WarmUp, What},
};

use crate::{
    app::App,
    output::{Output, Verbosity, notice},
};

/// What may be done about archived packs.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Cold storage")]
pub(crate) struct WarmUpArgs {
    /// Bring archived packs back, and wait for them: takes hours, and the store charges for it
    #[arg(long)]
    warm_up: bool,
    /// Wait so long at most for what is asked for at once (3d)
    #[arg(long, value_name = "DURATION", requires = "warm_up", value_parser = parse_duration)]
    warm_up_timeout: Option<Duration>,
}

impl WarmUpArgs {
    /// The run of a command that was given these flags.
    pub(crate) fn run(&self, app: &App<'_>) -> Run {
        self.allow(&app.run, app.output)
    }

    /// Whether archived packs may be brought back.
    pub(crate) fn is_given(&self) -> bool {
        self.warm_up
    }

    /// A run, with what these flags allow.
    pub(crate) fn allow(&self, run: &Run, output: &Output) -> Run {
        if !self.warm_up {
            return run.clone();
        }
        let at_most = self.warm_up_timeout.unwrap_or(AT_MOST_DEFAULT);
        let is_told = !output.is_json() && output.verbosity() != Verbosity::Quiet;
        let warm_up = WarmUp::allowed(at_most).telling(move |event| {
            if is_told {
                notice(text(event));
            }
        });
        Run { warm_up, ..run.clone() }
    }
}

fn text(event: Event) -> String {
    match event {
        Event::Asked { what, waits, on_their_way } => {
            let before = match on_their_way.packs {
                0 => String::new(),
                packs => format!(", {packs} of them asked for before"),
            };
            let are = agree(waits.packs, "is", "are");
            format!("the store brings back {} that {are} archived{before}", amount(what, waits))
        }
        Event::Ready { what, came, waited } => {
            let waited = format_duration(Duration::from_secs(waited.as_secs()));
            format!("{} can be read now; waited {waited}", amount(what, came))
        }
    }
}

/// What a reading did without, a line for each thing.
pub(crate) fn left_out(archived: Amount, trees: u64) -> Vec<String> {
    let mut lines = Vec::new();
    if archived.packs > 0 {
        let packs = packs(archived);
        let (are, them) = match archived.packs {
            1 => ("is", "it"),
            _ => ("are", "them"),
        };
        lines.push(format!(
            "not read back: {packs} that {are} archived; --warm-up brings {them} back"
        ));
    }
    if trees > 0 {
        let folders = counted(trees, "folder");
        lines.push(format!("not looked into: {folders} in such packs, and what is below"));
    }
    lines
}

/// An amount in words.
pub(crate) fn packs(packs: Amount) -> String {
    amount(What::Packs, packs)
}

fn amount(what: What, amount: Amount) -> String {
    format!("{} {} ({})", amount.packs, what.noun(amount.packs), format_size(amount.bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_names_numbers_and_times() {
        let waits = Amount { packs: 2, bytes: 3 << 20 };
        let on_their_way = Amount { packs: 1, bytes: 1 };
        assert_eq!(
            text(Event::Asked { what: What::Packs, waits, on_their_way }),
            "the store brings back 2 packs (3.00 MiB) that are archived, 1 of them asked for before"
        );
        let waited = Duration::from_millis(4 * 3_600_000 + 20);
        let ready = text(Event::Ready { what: What::SmallFiles, came: waits, waited });
        assert_eq!(ready, "2 small files (3.00 MiB) can be read now; waited 4h 00m");
    }
}
