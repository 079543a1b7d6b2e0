//! Walls: which crate of the workspace may see which.
//!
//! Each wall is worth its price because something is absent behind it; an arrow that goes up, or
//! to a sibling, quietly brings it back. The table below is the one in `ARCHITECTURE.md` as
//! data. To open a wall, write a decision and change both.

use super::Violation;
use crate::workspace::{Dependency, Package};

/// A crate and the crates that it may name in its manifest.
struct Wall {
    name: &'static str,
    may_see: &'static [&'static str],
}

/// Bottom to top: words, decisions, hands, operations, shell; then what only developers run.
const WALLS: &[Wall] = &[
    Wall { name: "model", may_see: &[] },
    Wall { name: "plan", may_see: &["model"] },
    Wall { name: "control", may_see: &["model"] },
    // The hands know nothing of plans; `ledger` also has no opinion about what entries mean.
    Wall { name: "repository", may_see: &["model", "control"] },
    Wall { name: "stores", may_see: &["model", "repository"] },
    Wall { name: "sources", may_see: &["model", "control", "repository"] },
    Wall { name: "replication", may_see: &["model", "control"] },
    Wall { name: "drivers", may_see: &["model", "control"] },
    Wall { name: "ledger", may_see: &["model"] },
    Wall { name: "operations", may_see: BELOW_OPERATIONS },
    Wall { name: "daemon", may_see: BELOW_DAEMON },
    // `cli` starts the daemon through one function; the daemon never sees `cli`.
    Wall { name: "cli", may_see: BELOW_CLI },
    Wall { name: "testkit", may_see: &["model", "control"] },
    Wall { name: "xtask", may_see: &["model", "plan", "control", "cli", "testkit"] },
];

const BELOW_OPERATIONS: &[&str] = &[
    "model",
    "plan",
    "control",
    "repository",
    "stores",
    "sources",
    "replication",
    "drivers",
    "ledger",
];

const BELOW_DAEMON: &[&str] = &[
    "model",
    "plan",
    "control",
    "repository",
    "stores",
    "sources",
    "replication",
    "drivers",
    "ledger",
    "operations",
];

const BELOW_CLI: &[&str] = &[
    "model",
    "plan",
    "control",
    "repository",
    "stores",
    "sources",
    "replication",
    "drivers",
    "ledger",
    "operations",
    "daemon",
];

/// Finds crates that the table does not know and arrows that it does not allow.
pub(super) fn check(packages: &[Package]) -> Vec<Violation> {
    packages.iter().flat_map(check_package).collect()
}

fn check_package(package: &Package) -> Vec<Violation> {
    let Some(wall) = WALLS.iter().find(|wall| wall.name == package.name) else {
        return vec![Violation::new(
            &package.manifest,
            1,
            format!("the crate `{}` has no place in the architecture", package.name),
            "add it to ARCHITECTURE.md and to the table in xtask/src/tidy/walls.rs",
        )];
    };
    let forbidden =
        |dependency: &&Dependency| dependency.is_ours && !is_allowed(wall, package, dependency);
    package.dependencies.iter().filter(forbidden).map(|to| violation(package, to)).collect()
}

/// Tests may use `testkit`, and a crate's own features under test.
fn is_allowed(wall: &Wall, package: &Package, to: &Dependency) -> bool {
    let for_tests = to.is_dev && (to.name == "testkit" || to.name == package.name);
    for_tests || wall.may_see.contains(&to.name.as_str())
}

fn violation(package: &Package, to: &Dependency) -> Violation {
    Violation::new(
        &package.manifest,
        1,
        format!("`{}` may not see `{}`", package.name, to.name),
        "move the code to where the arrow goes down, or write a decision that opens the wall",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks a manifest with the given arrows to crates of ours; `(dev)` marks one for tests.
    fn check_arrows(from: &str, to: &[&str]) -> Vec<String> {
        let dependencies = to.iter().map(|name| Dependency {
            name: name.trim_end_matches(" (dev)").to_owned(),
            is_ours: true,
            is_dev: name.ends_with(" (dev)"),
        });
        let package = Package {
            name: from.to_owned(),
            manifest: format!("crates/{from}/Cargo.toml"),
            dependencies: dependencies.collect(),
        };
        check(&[package]).into_iter().map(|violation| violation.wrong).collect()
    }

    #[test]
    fn arrows_go_down() {
        assert!(check_arrows("cli", &["model", "repository", "operations"]).is_empty());
        assert!(check_arrows("sources", &["repository"]).is_empty());
        assert_eq!(check_arrows("model", &["plan"]), ["`model` may not see `plan`"]);
        assert_eq!(check_arrows("daemon", &["cli"]), ["`daemon` may not see `cli`"]);
    }

    #[test]
    fn siblings_do_not_see_one_another() {
        assert_eq!(check_arrows("repository", &["ledger"]), ["`repository` may not see `ledger`"]);
        assert_eq!(check_arrows("plan", &["control"]), ["`plan` may not see `control`"]);
    }

    #[test]
    fn hands_know_no_plans() {
        for hand in ["repository", "sources", "replication", "drivers", "ledger"] {
            assert_eq!(check_arrows(hand, &["plan"]).len(), 1, "{hand}");
        }
    }

    #[test]
    fn tests_may_see_testkit_and_their_own_features() {
        assert!(check_arrows("repository", &["testkit (dev)", "repository (dev)"]).is_empty());
        assert_eq!(check_arrows("repository", &["testkit"]).len(), 1);
        assert_eq!(check_arrows("model", &["repository (dev)"]).len(), 1);
    }

    #[test]
    fn a_new_crate_needs_a_place() {
        assert_eq!(
            check_arrows("misc", &[]),
            ["the crate `misc` has no place in the architecture"]
        );
    }

    #[test]
    fn crates_from_outside_are_not_arrows() {
        let to = Dependency { name: "plan".to_owned(), is_ours: false, is_dev: false };
        let package = Package {
            name: "model".to_owned(),
            manifest: "crates/model/Cargo.toml".to_owned(),
            dependencies: vec![to],
        };
        assert!(check(&[package]).is_empty());
    }
}
