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

/// rustic takes about ten minutes to build and is therefore never installed on the side.
const PROGRAMS: &[Program] = &[
    Program { name: "python3", package: Some("python3"), install: "apt-get install python3" },
    Program { name: "restic", package: Some("restic"), install: "apt-get install restic" },
    Program { name: "borg", package: Some("borgbackup"), install: "apt-get install borgbackup" },
    Program { name: "rustic", package: None, install: "cargo install rustic-rs --locked" },
];

/// Finds python3 and the peers on the PATH, or installs them when told to.
///
/// # Errors
///
/// A program is missing and may not or cannot be installed; the message says how to.
pub(super) fn find(options: &Options) -> anyhow::Result<()> {
    let needed = ["python3"].into_iter().chain(options.on_path());
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

fn program(name: &str) -> anyhow::Result<&'static Program> {
    PROGRAMS.iter().find(|program| program.name == name).with_context(|| {
        format!("no tool is called `{name}`; there are muster, restic, rustic and borg")
    })
}

fn hint(program: &Program) -> String {
    let apt = if program.package.is_some() { " (or --install)" } else { "" };
    format!("  {}: {}{apt}", program.name, program.install)
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
        assert_eq!(hint(program("rustic").unwrap()), "  rustic: cargo install rustic-rs --locked");
        assert!(program("tar").is_err());
    }
}
