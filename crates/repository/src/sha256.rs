//! SHA-256 of several messages, two at once.
//!
//! A processor with instructions for SHA-256 waits for most of them, since each round needs the one
//! before. Two messages that are hashed side by side fill each other's waiting time, and together
//! take little longer than one. So what has several blobs at hand names or verifies them in one
//! call.
//!
//! A message may also come in parts, each beside another one ([`Running`]).
//!
//! Deliberately not here: hashing one message, which is the `sha2` crate's. It is also the safe
//! twin that this is tested against, does what is left when one message has ended, and all of it
//! on processors without these instructions.
//!
//! # Source
//! FIPS 180-4, *Secure Hash Standard*.

#[cfg(target_arch = "x86_64")]
mod lanes;

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

/// A message on its way.
struct Lane<'m> {
    number: usize,
    state: State,
    left: &'m [Block],
}

impl<'m> Lane<'m> {
    fn new(number: usize, message: &'m [u8]) -> Self {
        Self { number, state: INITIAL, left: message.as_chunks().0 }
    }

    /// The next so many blocks.
    fn take(&mut self, blocks: usize) -> &'m [Block] {
        let (taken, left) = self.left.split_at(blocks);
        self.left = left;
        taken
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
    // The longest first: none is left to be alone for long.
    let mut order: Vec<usize> = (0..messages.len()).collect();
    order.sort_by_key(|&number| std::cmp::Reverse(messages[number].len()));
    let mut lanes = order.into_iter().map(|number| Lane::new(number, messages[number]));
    let Some(mut first) = lanes.next() else { return };
    for mut second in lanes {
        let both = first.left.len().min(second.left.len());
        let (a, b) = (first.take(both), second.take(both));
        compress_both([&mut first.state, &mut second.state], a, b);
        let done = match first.left.is_empty() {
            true => std::mem::replace(&mut first, second),
            false => second,
        };
        done.finish(messages, digests);
    }
    first.finish(messages, digests);
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
        let mut other = Lane::new(0, message);
        let (blocks, _) = part.as_chunks();
        let both = &blocks[..blocks.len().min(other.left.len())];
        let beside = other.take(both.len());
        compress_both([&mut self.state, &mut other.state], both, beside);
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

fn compress_both(states: [&mut State; 2], a: &[Block], b: &[Block]) {
    let [state_a, state_b] = states;
    #[cfg(target_arch = "x86_64")]
    if lanes::compress_both([state_a, state_b], a, b) {
        return;
    }
    compress256(state_a, a);
    compress256(state_b, b);
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
        let block = |n: usize| std::array::from_fn(|at| (n * 7 + at * 13).to_le_bytes()[0]);
        let (a, b): (Vec<Block>, Vec<Block>) =
            ((0..9).map(block).collect(), (9..18).map(block).collect());
        let [mut state_a, mut state_b] = [INITIAL, [7; 8]];
        let [mut plain_a, mut plain_b] = [state_a, state_b];
        if lanes::compress_both([&mut state_a, &mut state_b], &a, &b) {
            compress256(&mut plain_a, &a);
            compress256(&mut plain_b, &b);
            assert_eq!([state_a, state_b], [plain_a, plain_b]);
        }
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
        fn many_are_what_they_are_alone(
            messages in proptest::collection::vec(
                proptest::collection::vec(any::<u8>(), 0..1_000), 0..7),
        ) {
            assert_right(&messages.iter().map(Vec::as_slice).collect::<Vec<_>>());
        }
    }
}
