//! The folders above the snapshots: by id, by time, by host, by tag.
//!
//! # Source
//! restic, `internal/fuse/snapshots_dirstruct.go`.

use std::collections::BTreeMap;

use super::{Attributes, DirEntry, ROOT};
use crate::{
    format::{snapshot::Snapshot, time::Timestamp, tree::NodeKind},
    id::{BlobId, SnapshotId},
};

/// The name of the link to the newest snapshot of a folder.
const LATEST: &[u8] = b"latest";

/// Something of the layout.
pub(super) enum Fixed {
    /// A folder.
    Folder(BTreeMap<Vec<u8>, u64>),
    /// A symbolic link.
    Link(Vec<u8>),
    /// The folder of a snapshot: its time, its tree.
    Snapshot(Timestamp, BlobId),
}

/// All of it; the position is the number, less one.
pub(super) struct Layout {
    fixed: Vec<Fixed>,
    newest: Timestamp,
}

impl Layout {
    /// The layout of these snapshots.
    pub(super) fn new(mut snapshots: Vec<(SnapshotId, Snapshot)>) -> Self {
        snapshots.sort_by(|(a_id, a), (b_id, b)| a.time.cmp(&b.time).then(a_id.cmp(b_id)));
        let newest = snapshots.last().map_or(Timestamp::UNIX_EPOCH, |(_, snapshot)| snapshot.time);
        let mut layout = Self { fixed: vec![Fixed::Folder(BTreeMap::new())], newest };
        let mut groups: BTreeMap<[Vec<u8>; 2], Vec<&Snapshot>> = BTreeMap::new();
        for top in ["hosts", "ids", "snapshots", "tags"] {
            layout.folder(ROOT, top.as_bytes().to_vec());
        }
        for (_, snapshot) in &snapshots {
            let mut add = |top: &str, name: &str| {
                let key = [top.as_bytes().to_vec(), file_name(name)];
                groups.entry(key).or_default().push(snapshot);
            };
            add("snapshots", "");
            if !snapshot.hostname.is_empty() {
                add("hosts", &snapshot.hostname);
            }
            snapshot.tags.iter().for_each(|tag| add("tags", tag));
        }
        for ([top, name], members) in groups {
            let mut folder = layout.number(ROOT, &top);
            if top != b"snapshots" {
                folder = layout.folder(folder, name);
            }
            layout.by_time(folder, &members);
        }
        let ids = layout.number(ROOT, b"ids");
        for (id, snapshot) in &snapshots {
            let fixed = Fixed::Snapshot(snapshot.time, snapshot.tree);
            let name = match layout.has(ids, id.short().as_bytes()) {
                false => id.short(),
                true => id.to_hex(),
            };
            layout.add(ids, name.into_bytes(), fixed);
        }
        layout
    }

    /// One folder for each snapshot, named by its time, and the link to the newest.
    fn by_time(&mut self, folder: u64, snapshots: &[&Snapshot]) {
        let mut newest = None;
        // By time: the number for the next of the same time, of which there may be very many.
        let mut numbers: BTreeMap<String, usize> = BTreeMap::new();
        for snapshot in snapshots {
            let time = name_of(&snapshot.time);
            let number = numbers.entry(time.clone()).or_default();
            let mut name = time.clone();
            while self.has(folder, name.as_bytes()) {
                *number += 1;
                name = format!("{time}-{number}");
            }
            let fixed = Fixed::Snapshot(snapshot.time, snapshot.tree);
            self.add(folder, name.clone().into_bytes(), fixed);
            newest = Some(name);
        }
        if let Some(newest) = newest {
            self.add(folder, LATEST.to_vec(), Fixed::Link(newest.into_bytes()));
        }
    }

    fn has(&self, folder: u64, name: &[u8]) -> bool {
        matches!(self.get(folder), Some(Fixed::Folder(entries)) if entries.contains_key(name))
    }

    /// The number of an entry that was made before.
    fn number(&self, folder: u64, name: &[u8]) -> u64 {
        match self.get(folder) {
            Some(Fixed::Folder(entries)) => entries.get(name).copied().unwrap_or(ROOT),
            _ => ROOT,
        }
    }

    /// A folder of this name, made when there is none.
    fn folder(&mut self, above: u64, name: Vec<u8>) -> u64 {
        match self.has(above, &name) {
            true => self.number(above, &name),
            false => self.add(above, name, Fixed::Folder(BTreeMap::new())),
        }
    }

    fn add(&mut self, folder: u64, name: Vec<u8>, fixed: Fixed) -> u64 {
        self.fixed.push(fixed);
        let number = self.fixed.len() as u64;
        if let Some(Fixed::Folder(entries)) = self.get_mut(folder) {
            entries.insert(name, number);
        }
        number
    }

    pub(super) fn get(&self, number: u64) -> Option<&Fixed> {
        self.fixed.get(usize::try_from(number.checked_sub(1)?).ok()?)
    }

    fn get_mut(&mut self, number: u64) -> Option<&mut Fixed> {
        self.fixed.get_mut(usize::try_from(number.checked_sub(1)?).ok()?)
    }

    pub(super) fn attributes(&self, number: u64) -> Option<Attributes> {
        let (kind, mode, size, time) = match self.get(number)? {
            Fixed::Folder(_) => (NodeKind::Dir, 0o555, 0, self.newest),
            Fixed::Link(target) => (NodeKind::Symlink, 0o777, target.len() as u64, self.newest),
            Fixed::Snapshot(time, _) => (NodeKind::Dir, 0o555, 0, *time),
        };
        let (atime, mtime, ctime) = (time, time, time);
        let (owner, links, device) = (None, 1, 0);
        Some(Attributes { number, kind, mode, size, atime, mtime, ctime, owner, links, device })
    }

    /// The entries of one of the layout's folders.
    pub(super) fn entries(&self, number: u64) -> Option<Vec<DirEntry>> {
        let Fixed::Folder(entries) = self.get(number)? else { return None };
        let kind = |number: u64| match self.get(number) {
            Some(Fixed::Link(_)) => NodeKind::Symlink,
            _ => NodeKind::Dir,
        };
        let entry = |(name, &number): (&Vec<u8>, &u64)| DirEntry {
            number,
            name: name.clone(),
            kind: kind(number),
        };
        Some(entries.iter().map(entry).collect())
    }
}

/// `2026-01-31T17:45:00+01:00`: without the fraction of the second.
fn name_of(time: &Timestamp) -> String {
    Timestamp::new(time.seconds(), 0, time.offset_minutes()).to_string()
}

/// A name for a folder, from what may be no name: as restic does it.
fn file_name(text: &str) -> Vec<u8> {
    match text {
        "." => b"_".to_vec(),
        ".." => b"__".to_vec(),
        text => text.replace(['/', '\0'], "_").into_bytes(),
    }
}
