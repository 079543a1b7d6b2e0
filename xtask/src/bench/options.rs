//! What `cargo xtask bench` can be told, and what it tells the harness.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

pub(super) const USAGE: &str = "\
Usage: cargo xtask bench [OPTION]... [-- HARNESS OPTION]...
       cargo xtask bench --remote [OPTION OF bench/remote.py]...

  --datasets LIST  of mixed, small, system, database,
                   sparse, million                   (mixed,small)
  --tools LIST     of muster, restic, restic@0.18,
                   rustic, borg                      (restic,muster)
  --runs N         repetitions, medians are reported (3)
  --scale X        size of the datasets              (1.0; 0.02 for a look)
  --work DIR       scratch folder, about 15 GiB      (target/bench)
  --install        get missing peers: from Debian's packages (root), rustic from crates.io

Options after -- go to bench/backup_peers.py as they are.";

/// The choices for one invocation.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Options {
    pub(super) datasets: String,
    pub(super) tools: Vec<String>,
    pub(super) runs: String,
    pub(super) scale: String,
    /// Relative to the root of the workspace, unless absolute.
    pub(super) work: PathBuf,
    pub(super) installs: bool,
    rest: Vec<String>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            datasets: "mixed,small".to_owned(),
            tools: vec!["restic".to_owned(), "muster".to_owned()],
            runs: "3".to_owned(),
            scale: "1.0".to_owned(),
            work: PathBuf::from("target/bench"),
            installs: false,
            rest: Vec::new(),
        }
    }
}

impl Options {
    /// Reads the arguments; values stand apart (`--runs 3`) or behind `=`.
    pub(super) fn parse(args: &[String]) -> anyhow::Result<Options> {
        let mut options = Options::default();
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let (name, joined) = match arg.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (arg.as_str(), None),
            };
            let mut value = || {
                joined
                    .clone()
                    .or_else(|| args.next().cloned())
                    .with_context(|| format!("{name} needs a value"))
            };
            match name {
                "--datasets" => options.datasets = value()?,
                "--tools" => options.tools = value()?.split(',').map(str::to_owned).collect(),
                "--runs" => options.runs = value()?,
                "--scale" => options.scale = value()?,
                "--work" => options.work = PathBuf::from(value()?),
                "--install" => options.installs = true,
                "--" => {
                    options.rest = args.cloned().collect();
                    break;
                }
                _ => bail!("unknown option `{arg}`\n\n{USAGE}"),
            }
        }
        Ok(options)
    }

    /// Whether a tool, or a labelled build of it such as `restic@0.18`, is to be measured.
    pub(super) fn measures(&self, tool: &str) -> bool {
        self.tools.iter().any(|name| base(name) == tool)
    }

    /// The tools that the harness must find on the PATH by their own name.
    pub(super) fn on_path(&self, peers: &Path) -> impl Iterator<Item = &str> {
        self.peers().filter(|tool| !peers.join(tool).exists()).map(base)
    }

    /// The peers whose executable was not given.
    pub(super) fn peers(&self) -> impl Iterator<Item = &str> {
        let is_given = |tool: &str| {
            let exe = format!("{tool}=");
            self.rest.iter().any(|arg| arg.trim_start_matches("--exe=").starts_with(&exe))
        };
        let tools = self.tools.iter().map(String::as_str);
        tools.filter(move |tool| base(tool) != "muster" && !is_given(tool))
    }

    /// The arguments for the harness; `muster` is the freshly built binary.
    pub(super) fn harness_args(&self, work: &Path, muster: &Path) -> Vec<OsString> {
        let mut args: Vec<OsString> = vec!["--settle".into()];
        let mut give = |name: &str, value: OsString| args.extend([name.into(), value]);
        give("--work", work.into());
        give("--datasets", self.datasets.clone().into());
        give("--tools", self.tools.join(",").into());
        give("--runs", self.runs.clone().into());
        give("--scale", self.scale.clone().into());
        give("--json", work.join("result.json").into());
        give("--md", work.join("result.md").into());
        let mut exe = OsString::from("muster=");
        exe.push(muster);
        give("--exe", exe);
        let peers = work.join("peers");
        for peer in self.peers().filter(|peer| peers.join(peer).exists()) {
            let mut exe = OsString::from(format!("{peer}="));
            exe.push(peers.join(peer));
            give("--exe", exe);
        }
        args.extend(self.rest.iter().map(OsString::from));
        args
    }
}

fn base(tool: &str) -> &str {
    tool.split('@').next().unwrap_or(tool)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &str) -> anyhow::Result<Options> {
        let args: Vec<String> = args.split_whitespace().map(str::to_owned).collect();
        Options::parse(&args)
    }

    #[test]
    fn values_stand_apart_or_behind_an_equals_sign() {
        let apart = parse("--tools restic --scale 0.02 --runs 1 --work w --install").unwrap();
        assert_eq!(
            apart,
            parse("--tools=restic --scale=0.02 --runs=1 --work=w --install").unwrap()
        );
        assert_eq!((apart.tools.as_slice(), apart.installs), (&["restic".to_owned()][..], true));
        assert_eq!(parse("").unwrap(), Options::default());
    }

    #[test]
    fn mistakes_are_named() {
        assert!(
            parse("--toolz x").unwrap_err().to_string().starts_with("unknown option `--toolz`")
        );
        assert_eq!(parse("--runs").unwrap_err().to_string(), "--runs needs a value");
    }

    #[test]
    fn labelled_tools_need_no_place_on_the_path_once_given() {
        let options =
            parse("--tools restic,restic@0.18,muster,rustic -- --exe restic@0.18=/opt/restic")
                .unwrap();
        assert_eq!(options.on_path(Path::new("/none")).collect::<Vec<_>>(), ["restic", "rustic"]);
        assert!(options.measures("muster") && !options.measures("borg"));
    }

    #[test]
    fn the_harness_gets_what_it_needs() {
        let args =
            parse("-- --cold").unwrap().harness_args(Path::new("/w"), Path::new("/t/muster"));
        let args: Vec<_> = args.iter().map(|arg| arg.to_string_lossy()).collect();
        let args = args.join(" ");
        assert!(
            args.starts_with("--settle --work /w --datasets mixed,small --tools restic,muster")
        );
        assert!(args.ends_with("--exe muster=/t/muster --cold"));
    }
}
