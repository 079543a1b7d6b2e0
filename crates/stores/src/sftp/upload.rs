//! A file on its way to a server: several pieces of it at once, since each is answered.
//!
//! It gets its name elsewhere (`mod.rs`), and only when all of it was written.

use std::collections::VecDeque;

use crossbeam_channel::Receiver;

use super::{
    Done, SftpStorage, WINDOW, done,
    session::Session,
    wire::{Reply, Request},
};
use crate::pace::Way;

/// A file that is being written.
pub(super) struct Upload<'s> {
    store: &'s SftpStorage,
    session: &'s Session,
    handle: Vec<u8>,
    offset: u64,
    on_their_way: VecDeque<Receiver<Reply>>,
}

impl<'s> Upload<'s> {
    /// Begins at the beginning of an open file.
    pub(super) fn new(store: &'s SftpStorage, session: &'s Session, handle: Vec<u8>) -> Self {
        Self { store, session, handle, offset: 0, on_their_way: VecDeque::new() }
    }

    /// Writes what comes next.
    pub(super) fn push(&mut self, content: &[u8]) -> Done<()> {
        for data in content.chunks(self.store.piece_bytes(Way::Up)) {
            self.store.pass(Way::Up, data.len())?;
            let (handle, offset) = (&self.handle, self.offset);
            let write = Request::Write { handle, offset, data };
            self.on_their_way.push_back(self.session.send(write)?);
            self.offset += data.len() as u64;
            if self.on_their_way.len() >= WINDOW
                && let Some(first) = self.on_their_way.pop_front()
            {
                done(self.session.receive(&first)?)?;
            }
        }
        Ok(())
    }

    /// Waits for what is on its way, and for the disk; the outer error is that of the connection.
    pub(super) fn finish(self) -> Done<Done<()>> {
        let Self { session, handle, on_their_way, .. } = self;
        let handle = &handle;
        let mut written = Ok(());
        for reply in on_their_way {
            let one = done(session.receive(&reply)?);
            written = written.and(one);
        }
        if written.is_ok() && session.offers("fsync@openssh.com") {
            written = done(session.ask(Request::Sync { handle })?);
        }
        let closed = done(session.ask(Request::Close { handle })?);
        Ok(written.and(closed))
    }
}
