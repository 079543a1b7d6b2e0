//! Export: the log goes out.
//!
//! First an entry says what the bundle holds, then a checkpoint covers it, both in one
//! transaction; the rest is reading, and others may append meanwhile. The bundle is verified
//! before it is put at its path, whole or not at all. A crash in between costs an entry that
//! says that an export began.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use rusqlite::{Connection, Transaction};

use super::{
    contents::{
        CHECKPOINT, CHECKPOINTS_MAX, Contents, ENTRIES, KEY, MANIFEST, attachment_name,
        checkpoint_name, envelope_name, manifest,
    },
    lines,
    verify::{VerifyOptions, verify_bundle},
};
use crate::{
    archive::{self, Member},
    checkpoint::SignedCheckpoint,
    entry::{Entry, Filter, is_kind},
    error::LedgerError,
    files::{self, MODE_PUBLIC},
    ledger::{self, EXPORTED, Ledger, NewEntry},
    merkle::{Hash, Subtrees as _},
    tree::StoredTree,
};

/// What to export, besides the log.
#[derive(Debug, Clone, Copy)]
pub struct ExportOptions<'a> {
    /// When the export happens.
    pub at: Timestamp,
    /// Kinds of which there may be millions: their entries are told by hashes only.
    pub bulk_kinds: &'a [&'a str],
    /// Files to carry, such as a report: names (letters, digits, `.`, `_`, `-` and `/`) and
    /// contents. The log records their SHA-256.
    pub attachments: &'a [(String, Vec<u8>)],
}

impl ExportOptions<'_> {
    /// Exports everything in full and nothing besides.
    #[must_use]
    pub fn new(at: Timestamp) -> Self {
        Self { at, bulk_kinds: &[], attachments: &[] }
    }
}

/// A bundle that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    /// Where.
    pub path: PathBuf,
    /// The checkpoint over everything in it: what to keep elsewhere.
    pub checkpoint: SignedCheckpoint,
    /// The SHA-256 of the file in hexadecimal digits.
    pub sha256: String,
    /// The file's length.
    pub bytes: u64,
}

impl Ledger {
    /// Writes the whole log as a bundle, which replaces what is at the path. The log gets an
    /// entry of kind `exported` that says what the bundle holds.
    ///
    /// # Errors
    /// Fails when the options contradict themselves, the database cannot be read or written, the
    /// bundle does not verify (something is damaged; nothing is written then), or the file
    /// cannot be written.
    pub fn export(&self, to: &Path, options: &ExportOptions<'_>) -> Result<Exported, LedgerError> {
        check_options(options)?;
        let (contents, signed) =
            self.write(|transaction| self.seal_contents(transaction, options))?;
        let bundle = self.bundle(&contents, &signed, options)?;
        let trust = self.verifier().to_string();
        let verify = VerifyOptions { trust: Some(&trust), ..VerifyOptions::default() };
        verify_bundle(&bundle, &verify)
            .map_err(|source| LedgerError::ExportNotVerified { source })?;
        files::put(to, &bundle, MODE_PUBLIC)?;
        Ok(Exported {
            path: to.to_owned(),
            checkpoint: signed,
            sha256: Hash::of(&bundle).to_string(),
            bytes: bundle.len() as u64,
        })
    }

    fn seal_contents(
        &self,
        transaction: &Transaction<'_>,
        options: &ExportOptions<'_>,
    ) -> Result<(Contents, SignedCheckpoint), LedgerError> {
        let digest =
            |(name, bytes): &(String, Vec<u8>)| (name.clone(), Hash::of(bytes).to_string());
        let contents = Contents {
            bulk_kinds: options.bulk_kinds.iter().map(|kind| (*kind).to_owned()).collect(),
            counts: counts(transaction)?.into_iter().collect(),
            checkpoints: earlier_checkpoints(transaction)?,
            attachments: options.attachments.iter().map(digest).collect(),
        };
        let body = contents.to_body();
        ledger::append_any(transaction, NewEntry { kind: EXPORTED, at: options.at, body: &body })?;
        Ok((contents, ledger::checkpoint(transaction, self.signer()?)?))
    }

    fn bundle(
        &self,
        contents: &Contents,
        signed: &SignedCheckpoint,
        options: &ExportOptions<'_>,
    ) -> Result<Vec<u8>, LedgerError> {
        let (entries, envelopes) = self.entries_to_carry(contents, signed.checkpoint.size)?;
        let member = |name: &str, content: Vec<u8>| -> Member<'_> {
            (name.to_owned().into(), content.into())
        };
        let mut members = vec![
            member(KEY, format!("{}\n", self.verifier()).into_bytes()),
            member(CHECKPOINT, signed.note.clone().into_bytes()),
            member(ENTRIES, entries),
        ];
        for earlier in self.checkpoints()? {
            let size = earlier.checkpoint.size;
            if contents.checkpoints.contains(&size) {
                members.push(member(&checkpoint_name(size), earlier.note.into_bytes()));
            }
        }
        for sha256 in envelopes {
            let missing = || LedgerError::damaged(format!("envelope {sha256} is missing"));
            let bytes = self.attachment(&sha256)?.ok_or_else(missing)?;
            members.push(member(&envelope_name(&sha256), bytes));
        }
        for (name, bytes) in options.attachments {
            members.push(member(&attachment_name(name), bytes.clone()));
        }
        members.sort_unstable_by(|(left, _), (right, _)| left.cmp(right));
        members.insert(0, member(MANIFEST, manifest(&members).into_bytes()));
        archive::write(&members).ok_or_else(|| LedgerError::Export {
            problem: "a member is larger than 8 GiB".to_owned(),
        })
    }

    /// The lines of all entries, and the envelopes that those in full name.
    fn entries_to_carry(
        &self,
        contents: &Contents,
        size: u64,
    ) -> Result<(Vec<u8>, BTreeSet<String>), LedgerError> {
        let is_full = |kind: &&str| !contents.bulk_kinds.contains(*kind);
        let mut kinds: Vec<&str> =
            contents.counts.keys().map(String::as_str).filter(is_full).collect();
        kinds.push(EXPORTED);
        let filter = Filter { kinds: Some(&kinds), before_index: Some(size), ..Filter::default() };
        let (mut full, mut envelopes) = (Vec::new(), BTreeSet::new());
        self.for_each(&filter, |entry: Entry| {
            envelopes.extend(entry.envelopes().into_iter().map(str::to_owned));
            full.push((entry.index, entry.to_leaf()));
            ControlFlow::Continue(())
        })?;
        let (mut text, mut next) = (String::new(), 0);
        self.read(|connection| {
            for (index, leaf) in &full {
                write_elided(connection, next, *index, &contents.checkpoints, &mut text)?;
                writeln!(text, "{leaf}").expect("a string takes everything");
                next = index + 1;
            }
            Ok(())
        })?;
        Ok((text.into_bytes(), envelopes))
    }
}

fn write_elided(
    connection: &Connection,
    start: u64,
    end: u64,
    cuts: &BTreeSet<u64>,
    text: &mut String,
) -> Result<(), LedgerError> {
    for (from, level) in lines::elided(start, end, cuts) {
        let hash = StoredTree(connection).subtree(level, from >> level)?;
        text.push_str(&lines::elided_line(from, level, hash));
    }
    Ok(())
}

fn check_options(options: &ExportOptions<'_>) -> Result<(), LedgerError> {
    let refused = |problem| Err(LedgerError::Export { problem });
    for kind in options.bulk_kinds {
        if *kind == EXPORTED || !is_kind(kind) {
            return refused(format!("entries of kind '{kind}' cannot be left out"));
        }
    }
    let mut names = BTreeSet::new();
    for (name, _) in options.attachments {
        if !archive::is_member_name(&attachment_name(name)) {
            return refused(format!("'{name}' cannot be the name of an attachment"));
        }
        if !names.insert(name) {
            return refused(format!("two attachments are called '{name}'"));
        }
    }
    Ok(())
}

fn counts(connection: &Connection) -> Result<Vec<(String, u64)>, LedgerError> {
    let run = || -> rusqlite::Result<Vec<(String, u64)>> {
        let select = "SELECT count(*), kind FROM entry GROUP BY kind";
        let mut statement = connection.prepare(select)?;
        let rows = statement.query_map([], ledger::index_and_text)?;
        rows.map(|row| row.map(|(count, kind)| (kind, count))).collect()
    };
    run().map_err(LedgerError::database("read"))
}

/// The sizes of the first checkpoint and the newest.
fn earlier_checkpoints(connection: &Connection) -> Result<BTreeSet<u64>, LedgerError> {
    let notes = ledger::checkpoint_notes(connection)?;
    let newest = notes.len().saturating_sub(CHECKPOINTS_MAX);
    Ok(notes.iter().take(1).chain(&notes[newest..]).map(|(size, _)| *size).collect())
}
