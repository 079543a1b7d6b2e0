//! The peers: are they here, and if not, how does one get them?

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};

use super::options::Options;
use crate::say;

/// A program that a run needs.
struct Program {
    name: &'static str,
    /// Its Debian package, where there is one.
    package: Option<&'static str>,
    install: &'static str,
}

const PROGRAMS: &[Program] = &[
    Program { name: "python3", package: Some("python3"), install: "apt-get install python3" },
    Program { name: "restic", package: Some("restic"), install: "apt-get install restic" },
    Program { name: "borg", package: Some("borgbackup"), install: "apt-get install borgbackup" },
    Program { name: "rustic", package: None, install: "cargo install rustic-rs --locked" },
];

/// Peers that `bench/install-peers.sh` can get.
const BROUGHT: [&str; 2] = ["rustic", "restic@0.18"];

/// Finds python3 and the peers on the PATH or among those that were brought before, or gets them
/// when told to.
///
/// # Errors
///
/// A program is missing and may not or cannot be installed; the message says how to.
pub(super) fn find(options: &Options, root: &Path) -> anyhow::Result<()> {
    let peers = root.join(&options.work).join("peers");
    if options.installs {
        bring(options, root, &peers)?;
    }
    let needed = ["python3"].into_iter().chain(options.on_path(&peers));
    let missing = needed.filter(|name| which(name).is_none()).map(program);
    let mut missing: Vec<&Program> = missing.collect::<anyhow::Result<_>>()?;
    if options.installs {
        install(&missing)?;
        missing.retain(|program| which(program.name).is_none());
    }
    let hints: Vec<String> = missing.iter().map(|program| hint(program)).collect();
    ensure!(hints.is_empty(), "not on the PATH:\n{}", hints.join("\n"));
    Ok(())
}

/// Gets the peers that no package of this system brings.
fn bring(options: &Options, root: &Path, peers: &Path) -> anyhow::Result<()> {
    let wanted = |peer: &&str| BROUGHT.contains(peer) && !peers.join(peer).exists();
    let wanted: Vec<&str> =
        options.peers().filter(wanted).filter(|peer| which(peer).is_none()).collect();
    if wanted.is_empty() {
        return Ok(());
    }
    say::line(&format!("getting {}", wanted.join(" ")));
    let script = root.join("bench/install-peers.sh");
    let brought = Command::new(&script).arg(peers).args(&wanted).status().context("run it")?;
    ensure!(brought.success(), "{} failed", script.display());
    Ok(())
}

fn program(name: &str) -> anyhow::Result<&'static Program> {
    PROGRAMS.iter().find(|program| program.name == name).with_context(|| {
        format!("no tool is called `{name}`; there are muster, restic, rustic and borg")
    })
}

fn hint(program: &Program) -> String {
    format!("  {}: {} (or --install)", program.name, program.install)
}

fn install(missing: &[&Program]) -> anyhow::Result<()> {
    let packages: Vec<&str> = missing.iter().filter_map(|program| program.package).collect();
    if packages.is_empty() {
        return Ok(());
    }
    say::line(&format!("installing {}", packages.join(" ")));
    for args in [&["update", "-q"][..], &[&["install", "-qy"], &packages[..]].concat()] {
        let status = Command::new("apt-get")
            .args(args)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .status()
            .context("run apt-get")?;
        if !status.success() {
            bail!("apt-get {} failed (it needs root)", args.join(" "));
        }
    }
    Ok(())
}

fn which(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| is_executable(file))
}

fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_looked_for_on_the_path() {
        assert!(which("sh").is_some());
        assert!(which("no-such-program").is_none());
    }

    #[test]
    fn a_hint_names_the_command() {
        assert_eq!(
            hint(program("borg").unwrap()),
            "  borg: apt-get install borgbackup (or --install)"
        );
        let rustic = "  rustic: cargo install rustic-rs --locked (or --install)";
        assert_eq!(hint(program("rustic").unwrap()), rustic);
        assert!(program("tar").is_err());
    }
}
