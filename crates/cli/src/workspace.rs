//! Which plan, and where its state is: the arguments of every verb that works with a plan.

use std::path::{Path, PathBuf};

use clap::{Args, ValueHint};

use crate::location::variable_set;

/// The plan's name, where nobody says otherwise.
const PLAN: &str = "muster.yaml";

/// The state's name, beside the plan.
const STATE: &str = ".muster";

/// Which plan, and where its state is.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Plan")]
pub(crate) struct PlanArgs {
    /// The plan [env: MUSTER_PLAN] [default: ./muster.yaml]
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    plan: Option<PathBuf>,
    /// Folder of the state: the ledger, its signing key [env: MUSTER_STATE] [default: .muster
    /// beside the plan]
    #[arg(long, global = true, value_name = "DIR", value_hint = ValueHint::DirPath)]
    state: Option<PathBuf>,
}

impl PlanArgs {
    /// The plan's file; it need not exist.
    pub(crate) fn plan_path(&self) -> PathBuf {
        let named = self.plan.clone().or_else(|| variable_set("MUSTER_PLAN").map(Into::into));
        named.unwrap_or_else(|| PLAN.into())
    }

    /// The state's folder; it need not exist.
    pub(crate) fn state_path(&self) -> PathBuf {
        let named = self.state.clone().or_else(|| variable_set("MUSTER_STATE").map(Into::into));
        named.unwrap_or_else(|| beside(&self.plan_path()))
    }
}

/// The state of a plan, where nobody says otherwise.
fn beside(plan: &Path) -> PathBuf {
    plan.parent().unwrap_or(Path::new("")).join(STATE)
}

/// The arguments of [`PlanArgs`] where they have no say: accepted, so that a script may give
/// them to every command, and not shown in the help.
#[derive(Debug, Clone, Args)]
pub(crate) struct NoPlanArgs {
    #[arg(id = "plan", long = "plan", global = true, hide = true, value_name = "FILE")]
    _plan: Option<PathBuf>,
    #[arg(id = "state", long = "state", global = true, hide = true, value_name = "DIR")]
    _state: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_stands_beside_the_plan() {
        let check = |plan: &str, state: &str| assert_eq!(beside(plan.as_ref()), Path::new(state));
        check("muster.yaml", ".muster");
        check("./muster.yaml", "./.muster");
        check("../shop/plan.yaml", "../shop/.muster");
        check("/etc/muster.yaml", "/etc/.muster");
    }

    #[test]
    fn what_is_named_counts() {
        let args = PlanArgs { plan: Some("a/b.yaml".into()), state: Some("c".into()) };
        assert_eq!(args.plan_path(), Path::new("a/b.yaml"));
        assert_eq!(args.state_path(), Path::new("c"));
    }
}
