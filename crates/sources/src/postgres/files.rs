//! Which files of a data directory belong into a base backup.
//!
//! The same as `pg_basebackup` takes: what a server makes anew when it starts is left out, and so
//! is what belongs to the running server only.
//!
//! # Source
//! PostgreSQL documentation, *Making a Base Backup Using the Low Level API*, *Backing Up the Data
//! Directory*; `src/backend/backup/basebackup.c`: `excludeDirContents`, `excludeFiles`,
//! `sendDir`.

use std::collections::HashSet;

/// Pages of a relation in one segment file.
const SEGMENT_PAGES: u32 = 131_072;

/// Folders of the data directory whose content is left out.
const EMPTIED_FOLDERS: &[&str] = &[
    "pg_dynshmem",
    "pg_notify",
    "pg_replslot",
    "pg_serial",
    "pg_snapshots",
    "pg_stat_tmp",
    "pg_subtrans",
    // What is needed of the log is copied after the backup's end.
    "pg_wal",
];

/// Files that are left out wherever they are.
const LEFT_OUT: &[&str] = &[
    "backup_label",
    "backup_label.old",
    "backup_manifest",
    "current_logfiles.tmp",
    "postgresql.auto.conf.tmp",
    "postmaster.opts",
    "postmaster.pid",
    "tablespace_map",
    "tablespace_map.old",
];

/// Whether only the folder itself is recorded. `path` is relative to the data directory.
pub(super) fn is_emptied(path: &str) -> bool {
    EMPTIED_FOLDERS.contains(&path)
}

/// Whether an entry is left out, by its name alone.
pub(super) fn is_left_out(name: &str) -> bool {
    LEFT_OUT.contains(&name)
        || name.starts_with("pgsql_tmp")
        || name.starts_with("pg_internal.init")
        || is_temporary_relation(name)
}

/// `t3_16384`: a table that lives as long as its session.
fn is_temporary_relation(name: &str) -> bool {
    let Some((backend, rest)) = name.strip_prefix('t').and_then(|rest| rest.split_once('_')) else {
        return false;
    };
    is_number(backend) && RelationFile::parse(rest).is_some()
}

/// A file of a relation: `16384`, `16384.1`, `16384_fsm`, `16384_init`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RelationFile<'n> {
    pub(super) number: &'n str,
    pub(super) fork: Option<&'n str>,
    segment: u32,
}

impl<'n> RelationFile<'n> {
    pub(super) fn parse(name: &'n str) -> Option<Self> {
        let (name, segment) = match name.split_once('.') {
            Some((name, segment)) => (name, segment.parse().ok()?),
            None => (name, 0),
        };
        let (number, fork) = match name.split_once('_') {
            Some((number, fork)) => (number, Some(fork)),
            None => (name, None),
        };
        let known = fork.is_none_or(|fork| matches!(fork, "fsm" | "vm" | "init"));
        (is_number(number) && known).then_some(Self { number, fork, segment })
    }

    /// Number of the file's first page in the relation.
    pub(super) fn first_page(&self) -> u32 {
        self.segment.saturating_mul(SEGMENT_PAGES)
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether a folder holds relations: `global`, `base/1`, `PG_15_202209061/16384` of a tablespace.
pub(super) fn holds_relations(folder: &str, is_tablespace: bool) -> bool {
    let names: Vec<_> = folder.split('/').collect();
    match (is_tablespace, names.as_slice()) {
        (false, ["global"]) => true,
        (false, ["base", database]) => is_number(database),
        (true, [version, database]) => version.starts_with("PG_") && is_number(database),
        // A tablespace within the data directory, which only developers have.
        (false, ["pg_tblspc", number, version, database]) => {
            is_number(number) && version.starts_with("PG_") && is_number(database)
        }
        _ => false,
    }
}

/// The relations in a folder that are emptied after a crash, and so by every restore: those with
/// a fork `init`. Of them only that fork is taken.
pub(super) fn unlogged<'n>(names: impl Iterator<Item = &'n str>) -> HashSet<&'n str> {
    names
        .filter_map(RelationFile::parse)
        .filter(|file| file.fork == Some("init"))
        .map(|file| file.number)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_the_running_server_needs_is_left_out() {
        for name in ["postmaster.pid", "pgsql_tmp12.3", "pg_internal.init.77", "t4_16384_fsm"] {
            assert!(is_left_out(name), "{name}");
        }
        for name in ["PG_VERSION", "16384", "pg_control", "postgresql.auto.conf", "t_1", "tx_1"] {
            assert!(!is_left_out(name), "{name}");
        }
        assert!(is_emptied("pg_wal") && !is_emptied("pg_xact") && !is_emptied("base/pg_wal"));
    }

    #[test]
    fn relation_files_are_told_from_others() {
        let parse = RelationFile::parse;
        assert_eq!(parse("16384.2").unwrap().first_page(), 262_144);
        assert_eq!(parse("1259_vm").unwrap().fork, Some("vm"));
        for name in ["pg_filenode.map", "PG_VERSION", "1259_old", "12x", "pg_control", "12.x"] {
            assert_eq!(parse(name), None, "{name}");
        }
    }

    #[test]
    fn folders_of_relations_are_known() {
        assert!(holds_relations("global", false) && holds_relations("base/5", false));
        assert!(holds_relations("PG_15_202209061/16384", true));
        assert!(!holds_relations("base", false) && !holds_relations("pg_xact", false));
        assert!(!holds_relations("base/5", true));
    }

    #[test]
    fn unlogged_relations_have_an_init_fork() {
        let names = ["16384", "16384_init", "16385", "16385_fsm"];
        assert_eq!(unlogged(names.into_iter()), HashSet::from(["16384"]));
    }
}
