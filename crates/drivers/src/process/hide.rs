//! Paths that a child shall not see: production's files, from a rehearsal.
//!
//! The child gets a mount namespace of its own (mount_namespaces(7)) in which nothing is left of
//! each path: an empty read-only folder that nobody may enter lies over a folder, the null device
//! over a file. Everybody else sees what they saw. It takes root, and a system that lets root
//! mount: [`can_hide`] tries it. Sockets of the network are not hidden.

use std::{
    ffi::OsString,
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use nix::unistd::geteuid;

use super::{
    identity::ChildIdentity,
    program::{setpriv, tool},
};

/// What is unmounted outside is unmounted in the child's namespace too.
const NAMESPACE: [&str; 4] = ["--mount", "--propagation", "slave", "--"];

/// What is done in the namespace: `$1` is mount(8), `$2` the number of paths, which follow; then
/// comes what shall run. A path that is not there needs no hiding, one that cannot be hidden ends
/// it all.
const HIDE: &str = r#"
mount=$1; n=$2; shift 2
while [ "$n" -gt 0 ]; do
  if [ -d "$1" ]; then "$mount" -t tmpfs -o ro,size=4k,mode=000 none "$1" || exit 125
  elif [ -e "$1" ]; then "$mount" --bind /dev/null "$1" || exit 125
  fi
  shift; n=$((n - 1))
done
exec "$@""#;

/// The words before a program that hide these paths from it; none when there are none, and where
/// nothing can be hidden.
pub(super) fn words_that_hide(paths: &[PathBuf]) -> Vec<OsString> {
    let Some([unshare, mount]) = tools().filter(|_| !paths.is_empty()) else { return Vec::new() };
    // A folder first, then what is in it: that is gone then, and needs no hiding.
    let mut paths = paths.to_vec();
    paths.sort();
    let mut words = vec![unshare.into()];
    words.extend(NAMESPACE.map(OsString::from));
    words.extend(["/bin/sh", "-c", HIDE, "sh"].map(OsString::from));
    words.extend([mount.into(), paths.len().to_string().into()]);
    words.extend(paths.into_iter().map(OsString::from));
    words
}

/// unshare(1) and mount(8). Without setpriv(1) a child would be another user before anything is
/// hidden from it.
fn tools() -> Option<[PathBuf; 2]> {
    setpriv()?;
    Some([tool("unshare")?, tool("mount")?])
}

/// Whether this process may hide paths from its children. It is tried, since being root is not
/// enough in a container.
#[must_use]
pub fn can_hide() -> bool {
    let words = words_that_hide(&["/proc".into()]);
    let Some((program, arguments)) = words.split_first() else { return false };
    let mut command = Command::new(program);
    command.args(arguments).arg("/bin/true");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    geteuid().is_root() && command.status().is_ok_and(|status| status.success())
}

/// Which of the paths that should be hidden a running child sees all the same: the same file, by
/// device and inode, under the same name.
///
/// # Errors
/// Fails when the child has ended or may not be looked at: then nothing is known.
pub fn seen_by(child: &ChildIdentity, hidden: &[PathBuf]) -> io::Result<Vec<PathBuf>> {
    let root = PathBuf::from(format!("/proc/{}/root", child.pid));
    fs::metadata(&root)?;
    let is_seen = |path: &&PathBuf| {
        let below = path.strip_prefix("/").unwrap_or(path);
        identity(path).is_some_and(|real| identity(&root.join(below)) == Some(real))
    };
    Ok(hidden.iter().filter(is_seen).cloned().collect())
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|status| (status.dev(), status.ino()))
}
