//! SHA-256 of several messages, up to four at once.
//!
//! A processor with instructions for SHA-256 waits for most of them, since each round needs the one
//! before. Messages that are hashed side by side fill each other's waiting time: two take little longer
//! than one. So what has several blobs at hand names or verifies them in one call.
//!
//! A message may also come in parts, each beside another one ([`Running`]), or wait with its parts
//! until something comes that it can be hashed beside ([`Stream`]).
//!
//! Deliberately not here: hashing one message, which is the `sha2` crate's. It is also the safe
//! twin that this is tested against, does what is left when one message has ended, and all of it
//! on processors without these instructions.
//!
//! # Source
//! FIPS 180-4, *Secure Hash Standard*.

#[cfg(target_arch = "x86_64")]
mod lanes;

use std::{collections::VecDeque, ops::DerefMut};

use sha2::block_api::compress256;

const BLOCK_BYTES: usize = 64;
const LENGTH_BYTES: usize = 8;

type State = [u32; 8];
type Block = [u8; BLOCK_BYTES];

/// The state before the first block (FIPS 180-4, 5.3.3).
const INITIAL: State = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];

/// How many are hashed side by side at most: with four, the instructions are nearly always busy.
const LANES: usize = 4;

/// What can be hashed beside something else.
trait Lane {
    /// The state so far, and blocks to be added to it; none when there are no more.
    fn ready(&mut self) -> (&mut State, &[Block]);

    /// So many of these blocks were added.
    fn advance(&mut self, blocks: usize);

    /// How much is still to be added, in bytes.
    fn left(&self) -> usize;
}

/// Hashes lanes side by side, the first ones first, until only one is left that has something.
fn run(lanes: Vec<&mut dyn Lane>) {
    let (total, longest) = lanes
        .iter()
        .fold((0, 0), |(total, longest), lane| (total + lane.left(), longest.max(lane.left())));
    // Most is gained by leaving nothing to be hashed alone: what is much longer than the rest has the
    // others beside it one after the other.
    let at_once = (total / longest.max(1)).clamp(2, LANES);
    let mut lanes = lanes.into_iter();
    let mut active: Vec<&mut dyn Lane> = Vec::with_capacity(LANES);
    loop {
        active.retain_mut(|lane| !lane.ready().1.is_empty());
        active.extend(lanes.by_ref().take(at_once - active.len()));
        match &mut active[..] {
            [] => return,
            [a] => {
                if !a.ready().1.is_empty() {
                    return;
                }
            }
            [a, b] => run_together([*a, *b]),
            [a, b, c] => run_together([*a, *b, *c]),
            [a, b, c, d, ..] => run_together([*a, *b, *c, *d]),
        }
    }
}

/// Hashes all until one has nothing more.
fn run_together<const N: usize>(mut lanes: [&mut dyn Lane; N]) {
    loop {
        let ready = lanes.each_mut().map(|lane| lane.ready());
        let blocks = ready.iter().map(|(_, blocks)| blocks.len()).min().unwrap_or(0);
        if blocks == 0 {
            return;
        }
        compress(ready.map(|(state, ready)| (state, &ready[..blocks])));
        lanes.iter_mut().for_each(|lane| lane.advance(blocks));
    }
}

/// A message on its way.
struct Message<'m> {
    number: usize,
    state: State,
    left: &'m [Block],
}

impl Lane for Message<'_> {
    fn ready(&mut self) -> (&mut State, &[Block]) {
        (&mut self.state, self.left)
    }

    fn advance(&mut self, blocks: usize) {
        self.left = &self.left[blocks..];
    }

    fn left(&self) -> usize {
        self.left.as_flattened().len()
    }
}

impl<'m> Message<'m> {
    fn new(number: usize, message: &'m [u8]) -> Self {
        Self { number, state: INITIAL, left: message.as_chunks().0 }
    }

    fn finish(mut self, messages: &[&[u8]], digests: &mut [[u8; 32]]) {
        compress256(&mut self.state, self.left);
        let message = messages[self.number];
        let (_, end) = message.as_chunks::<BLOCK_BYTES>();
        digests[self.number] = finish(self.state, end, message.len());
    }
}

/// Writes the SHA-256 of each message to its place in `digests`, of which there are as many.
pub(crate) fn digests(messages: &[&[u8]], digests: &mut [[u8; 32]]) {
    digests_beside::<Vec<u8>, &mut Stream<_>>(messages, digests, &mut []);
}

/// As [`digests`], and hashes of `streams` what can be hashed beside messages or beside each other.
pub(crate) fn digests_beside<P: AsRef<[u8]>, S: DerefMut<Target = Stream<P>>>(
    messages: &[&[u8]],
    digests: &mut [[u8; 32]],
    streams: &mut [S],
) {
    let mut lanes: Vec<Message<'_>> = messages
        .iter()
        .enumerate()
        .map(|(number, message)| Message::new(number, message))
        .collect();
    // The longest first, and streams last: they may wait, should one be left alone.
    lanes.sort_by_key(|lane| std::cmp::Reverse(lane.left()));
    let of_messages = lanes.iter_mut().map(|lane| -> &mut dyn Lane { lane });
    let of_streams = streams.iter_mut().map(|stream| -> &mut dyn Lane { &mut **stream });
    run(of_messages.chain(of_streams).collect());
    lanes.into_iter().for_each(|lane| lane.finish(messages, digests));
}

/// A message that comes in parts, of whole blocks but for the last.
pub(crate) struct Running {
    state: State,
    bytes: usize,
}

impl Running {
    pub(crate) fn new() -> Self {
        Self { state: INITIAL, bytes: 0 }
    }

    /// Adds the blocks that `part` begins with; what is behind them is not a part yet. Returns how
    /// many bytes they are.
    pub(crate) fn add(&mut self, part: &[u8]) -> usize {
        let (blocks, _) = part.as_chunks();
        compress256(&mut self.state, blocks);
        self.count(blocks)
    }

    /// Hashes `message`, and beside it as many blocks of `part` as it has; returns its digest, and how
    /// many bytes of the part were added.
    pub(crate) fn add_beside(&mut self, part: &[u8], message: &[u8]) -> ([u8; 32], usize) {
        let mut other = Message::new(0, message);
        let (blocks, _) = part.as_chunks();
        let both = &blocks[..blocks.len().min(other.left.len())];
        compress([(&mut self.state, both), (&mut other.state, &other.left[..both.len()])]);
        other.advance(both.len());
        let mut digest = [[0; 32]];
        other.finish(&[message], &mut digest);
        (digest[0], self.count(both))
    }

    fn count(&mut self, added: &[Block]) -> usize {
        self.bytes += added.as_flattened().len();
        added.as_flattened().len()
    }

    /// The digest of all parts and then of `end`.
    pub(crate) fn finish(mut self, end: &[u8]) -> [u8; 32] {
        let added = self.add(end);
        finish(self.state, &end[added..], self.bytes + end.len() - added)
    }
}

/// A message that comes in parts of any length, which wait to be hashed.
pub(crate) struct Stream<P> {
    running: Running,
    /// What is less than a block, of parts before: the next part completes it.
    begun: Vec<u8>,
    parts: VecDeque<P>,
    /// How much of the first part is hashed, or begins a block.
    at: usize,
    hashed: Vec<P>,
}

impl<P: AsRef<[u8]>> Stream<P> {
    /// Adds a part.
    pub(crate) fn push(&mut self, part: P) {
        self.parts.push_back(part);
        self.settle();
    }

    /// The parts that wait no more, once.
    pub(crate) fn take_hashed(&mut self) -> std::vec::Drain<'_, P> {
        self.hashed.drain(..)
    }

    /// Hashes what waits, beside nothing.
    pub(crate) fn catch_up(&mut self) {
        while let Some(part) = self.parts.front() {
            self.at += self.running.add(&part.as_ref()[self.at..]);
            self.settle();
        }
    }

    /// Hashes what waits, and then a part that cannot.
    pub(crate) fn add_now(&mut self, part: &[u8]) {
        self.catch_up();
        let rest = complete(&mut self.running, &mut self.begun, part);
        let added = self.running.add(rest);
        self.begun.extend_from_slice(&rest[added..]);
    }

    /// The digest of all parts.
    pub(crate) fn finish(mut self) -> [u8; 32] {
        self.catch_up();
        self.running.finish(&self.begun)
    }

    /// Goes on to where a whole block of a part is next.
    fn settle(&mut self) {
        while let Some(part) = self.parts.front() {
            let part = part.as_ref();
            let rest = complete(&mut self.running, &mut self.begun, &part[self.at..]);
            if rest.len() >= BLOCK_BYTES {
                self.at = part.len() - rest.len();
                return;
            }
            self.begun.extend_from_slice(rest);
            self.at = 0;
            self.hashed.extend(self.parts.pop_front());
        }
    }
}

impl<P: AsRef<[u8]>> Default for Stream<P> {
    fn default() -> Self {
        Self {
            running: Running::new(),
            begun: Vec::with_capacity(BLOCK_BYTES),
            parts: VecDeque::new(),
            at: 0,
            hashed: Vec::new(),
        }
    }
}

/// Completes a block that was begun, if one was, as far as `part` reaches, and hashes it; returns what is
/// behind that.
fn complete<'p>(running: &mut Running, begun: &mut Vec<u8>, part: &'p [u8]) -> &'p [u8] {
    if begun.is_empty() {
        return part;
    }
    let (completes, rest) = part.split_at(part.len().min(BLOCK_BYTES - begun.len()));
    begun.extend_from_slice(completes);
    if begun.len() == BLOCK_BYTES {
        running.add(begun);
        begun.clear();
    }
    rest
}

impl<P: AsRef<[u8]>> Lane for Stream<P> {
    fn ready(&mut self) -> (&mut State, &[Block]) {
        let part = self.parts.front().map_or(&[][..], |part| &part.as_ref()[self.at..]);
        (&mut self.running.state, part.as_chunks().0)
    }

    fn advance(&mut self, blocks: usize) {
        self.running.bytes += blocks * BLOCK_BYTES;
        self.at += blocks * BLOCK_BYTES;
        self.settle();
    }

    fn left(&self) -> usize {
        self.parts.iter().map(|part| part.as_ref().len()).sum::<usize>() - self.at
    }
}

/// Adds to each state its blocks, of which there are as many for each.
fn compress<const N: usize>(mut lanes: [(&mut State, &[Block]); N]) {
    #[cfg(target_arch = "x86_64")]
    if lanes::compress(&mut lanes) {
        return;
    }
    lanes.into_iter().for_each(|(state, blocks)| compress256(state, blocks));
}

/// Hashes the end of a message of `length` bytes, less than a block, and its padding.
fn finish(mut state: State, end: &[u8], length: usize) -> [u8; 32] {
    let mut last = [0; 2 * BLOCK_BYTES];
    last[..end.len()].copy_from_slice(end);
    last[end.len()] = 0x80;
    let blocks = (end.len() + 1 + LENGTH_BYTES).div_ceil(BLOCK_BYTES);
    let length_at = blocks * BLOCK_BYTES - LENGTH_BYTES;
    let bits = (length as u64 * 8).to_be_bytes();
    last[length_at..length_at + LENGTH_BYTES].copy_from_slice(&bits);
    compress256(&mut state, &last.as_chunks().0[..blocks]);
    let mut digest = [0; 32];
    for (bytes, word) in digest.as_chunks_mut().0.iter_mut().zip(state) {
        *bytes = word.to_be_bytes();
    }
    digest
}

#[cfg(test)]
mod tests {
    use std::array;

    use proptest::prelude::*;
    use sha2::{Digest, Sha256};

    use super::*;

    fn assert_right(messages: &[&[u8]]) {
        let mut found = vec![[0; 32]; messages.len()];
        digests(messages, &mut found);
        let expected = messages.iter().map(|message| Sha256::digest(message).into());
        let lengths: Vec<usize> = messages.iter().map(|message| message.len()).collect();
        assert_eq!(found, expected.collect::<Vec<[u8; 32]>>(), "{lengths:?} bytes");
    }

    #[test]
    fn every_length_around_a_block_is_padded_rightly() {
        let bytes: Vec<u8> = (0..300u32).map(|n| (n * 31).to_le_bytes()[0]).collect();
        for a in 0..bytes.len() {
            assert_right(&[&bytes[..a]]);
            for b in [0, 55, 56, 63, 64, 65, 119, 120, 128, 300 - a] {
                assert_right(&[&bytes[..a], &bytes[300 - b..]]);
            }
        }
        assert_right(&[]);
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn the_instructions_agree_with_the_plain_way() {
        fn assert_agree<const N: usize>() {
            let byte =
                |lane: usize, n: usize, at: usize| (lane * 89 + n * 7 + at * 13).to_le_bytes()[0];
            let blocks: [[Block; 9]; N] =
                array::from_fn(|lane| array::from_fn(|n| array::from_fn(|at| byte(lane, n, at))));
            let mut states: [State; N] =
                array::from_fn(|lane| [7 * u32::try_from(lane).unwrap(); 8]);
            let mut plain = states;
            let mut lanes = states.each_mut().map(|state| (state, &[][..]));
            lanes.iter_mut().zip(&blocks).for_each(|(lane, blocks)| lane.1 = blocks);
            if lanes::compress(&mut lanes) {
                plain
                    .iter_mut()
                    .zip(&blocks)
                    .for_each(|(state, blocks)| compress256(state, blocks));
                assert_eq!(states, plain);
            }
        }
        assert_agree::<2>();
        assert_agree::<3>();
        assert_agree::<4>();
    }

    proptest! {
        #[test]
        fn parts_join_to_the_message_whatever_is_beside_them(
            message in proptest::collection::vec(any::<u8>(), 0..2_000),
            beside in proptest::collection::vec(
                proptest::collection::vec(any::<u8>(), 0..700), 0..7),
        ) {
            let (mut running, mut at) = (Running::new(), 0);
            for (number, other) in beside.iter().enumerate() {
                let part = &message[at..message.len().min(at + 400)];
                if number == 3 {
                    at += running.add(part);
                }
                let part = &message[at..message.len().min(at + 400)];
                let (digest, added) = running.add_beside(part, other);
                let expected: [u8; 32] = Sha256::digest(other).into();
                prop_assert_eq!(digest, expected);
                prop_assert_eq!(added, 64 * (part.len() / 64).min(other.len() / 64));
                at += added;
            }
            let expected: [u8; 32] = Sha256::digest(&message).into();
            prop_assert_eq!(running.finish(&message[at..]), expected);
        }

        #[test]
        fn streams_are_what_they_are_alone_whatever_is_beside_them(
            streams in proptest::collection::vec(
                proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..400), 0..9), 0..4),
            messages in proptest::collection::vec(
                proptest::collection::vec(
                    proptest::collection::vec(any::<u8>(), 0..900), 0..4), 0..9),
        ) {
            let mut late: Vec<Stream<&[u8]>> = streams.iter().map(|_| Stream::default()).collect();
            for turn in 0..9 {
                for (stream, parts) in late.iter_mut().zip(&streams) {
                    parts.get(turn).into_iter().for_each(|part| stream.push(part));
                }
                let beside: Vec<&[u8]> =
                    messages.get(turn).into_iter().flatten().map(Vec::as_slice).collect();
                let mut found = vec![[0; 32]; beside.len()];
                digests_beside(&beside, &mut found, &mut late.iter_mut().collect::<Vec<_>>());
                let expected = beside.iter().map(|message| Sha256::digest(message).into());
                prop_assert_eq!(found, expected.collect::<Vec<[u8; 32]>>());
                // At most one has something that was beside nothing.
                prop_assert!(late.iter().filter(|stream| stream.left() > 0).count() <= 1);
            }
            for (mut stream, parts) in late.into_iter().zip(&streams) {
                stream.catch_up();
                prop_assert_eq!(stream.take_hashed().collect::<Vec<_>>(), parts.iter().collect::<Vec<_>>());
                let expected: [u8; 32] = Sha256::digest(parts.concat()).into();
                prop_assert_eq!(stream.finish(), expected);
            }
        }

        #[test]
        fn many_are_what_they_are_alone(
            messages in proptest::collection::vec(
                proptest::collection::vec(any::<u8>(), 0..1_000), 0..7),
        ) {
            assert_right(&messages.iter().map(Vec::as_slice).collect::<Vec<_>>());
        }
    }
}
