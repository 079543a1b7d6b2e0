//! `muster repo key`: the passwords that open the repository.

mod list;

use clap::Subcommand;

use crate::{app::App, error::Outcome};

/// The verbs of `key`.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// List the keys; each is a password
    List(list::Args),
}

/// Runs a verb.
pub(crate) fn run(verb: &Verb, app: &App) -> Outcome {
    match verb {
        Verb::List(args) => list::run(args, app),
    }
}
