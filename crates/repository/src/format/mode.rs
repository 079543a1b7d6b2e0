//! File modes: Go's `os.FileMode` bits, in which restic records them, and Linux's `st_mode`.
//!
//! # Source
//! Go, package `io/fs`, type `FileMode`; `inode(7)`.

use super::tree::NodeKind;

const GO_DIR: u32 = 1 << 31;
const GO_SYMLINK: u32 = 1 << 27;
const GO_DEVICE: u32 = 1 << 26;
const GO_FIFO: u32 = 1 << 25;
const GO_SOCKET: u32 = 1 << 24;
const GO_SETUID: u32 = 1 << 23;
const GO_SETGID: u32 = 1 << 22;
const GO_CHAR: u32 = 1 << 21;
const GO_STICKY: u32 = 1 << 20;
const GO_IRREGULAR: u32 = 1 << 19;

const UNIX_SETUID: u32 = 0o4000;
const UNIX_SETGID: u32 = 0o2000;
const UNIX_STICKY: u32 = 0o1000;
const PERMISSIONS: u32 = 0o777;

/// The three bits beyond the permissions, in Go's and in Linux's place.
const SPECIAL: [(u32, u32); 3] =
    [(GO_SETUID, UNIX_SETUID), (GO_SETGID, UNIX_SETGID), (GO_STICKY, UNIX_STICKY)];

/// Go's mode for a node of `kind` whose `st_mode` has these low twelve bits.
#[must_use]
pub fn go_mode(kind: NodeKind, unix_mode: u32) -> u32 {
    let kind_bits = match kind {
        NodeKind::File => 0,
        NodeKind::Dir => GO_DIR,
        NodeKind::Symlink => GO_SYMLINK,
        NodeKind::BlockDevice => GO_DEVICE,
        NodeKind::CharDevice => GO_DEVICE | GO_CHAR,
        NodeKind::Fifo => GO_FIFO,
        NodeKind::Socket => GO_SOCKET,
        NodeKind::Irregular => GO_IRREGULAR,
    };
    let special = SPECIAL.iter().filter(|(_, unix)| unix_mode & unix != 0);
    special.fold(kind_bits | unix_mode & PERMISSIONS, |mode, (go, _)| mode | go)
}

/// The low twelve bits of `st_mode` that a Go mode stands for.
#[must_use]
pub fn unix_mode(go_mode: u32) -> u32 {
    let special = SPECIAL.iter().filter(|(go, _)| go_mode & go != 0);
    special.fold(go_mode & PERMISSIONS, |mode, (_, unix)| mode | unix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_twelve_bits_survive() {
        for kind in NodeKind::ALL {
            for mode in 0..0o10000 {
                assert_eq!(unix_mode(go_mode(kind, mode)), mode);
            }
        }
    }

    #[test]
    fn values_are_those_of_go() {
        assert_eq!(go_mode(NodeKind::File, 0o644), 420);
        assert_eq!(go_mode(NodeKind::Dir, 0o755), 2_147_484_141);
        assert_eq!(go_mode(NodeKind::Symlink, 0o777), 134_218_239);
        assert_eq!(go_mode(NodeKind::File, 0o4755), 0x80_01ed);
        assert_eq!(go_mode(NodeKind::Dir, 0o1777), 0x8010_01ff);
    }
}
