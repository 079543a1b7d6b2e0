//! Sealing and opening: AES-256-CTR with a Poly1305-AES authenticator.
//!
//! A sealed message is `IV (16) || ciphertext || MAC (16)`. The IV is random for every sealing
//! and is, whole, the initial big-endian 128-bit counter. The MAC is Poly1305 over the
//! ciphertext with the one-time key `r || AES-128(k, IV)`. A message is verified before anybody
//! gets one byte that was decrypted of it.
//!
//! The counter is 128 bits wide on purpose: a 64-bit counter gives the same bytes until its low
//! half wraps inside a message, and then silently another format.
//!
//! # Source
//! restic, `doc/design.rst`, *Keys, Encryption and MAC*; D. J. Bernstein, *The Poly1305-AES
//! message-authentication code*, 2005.

#[cfg(target_arch = "x86_64")]
mod poly;
pub(crate) mod scrypt;
#[cfg(target_arch = "x86_64")]
mod wide;

use std::marker::PhantomData;

use aes::{
    Aes128, Aes256,
    cipher::{BlockCipherEncrypt, InnerIvInit, KeyInit, StreamCipher, StreamCipherCoreWrapper},
};
use ctr::{CtrCore, flavors::Ctr128BE};
use poly1305::{Poly1305, universal_hash::UniversalHash};
use thiserror::Error;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Length of the initialisation vector in bytes.
pub const IV_BYTES: usize = 16;
/// Length of the authenticator in bytes.
pub const MAC_BYTES: usize = 16;
/// How much longer a sealed message is than its plaintext, in bytes.
pub const OVERHEAD_BYTES: usize = IV_BYTES + MAC_BYTES;
/// Length of the raw key material in bytes: 32 for AES-256, 16 for k, 16 for r.
pub const KEY_BYTES: usize = 64;

/// How much is encrypted and then authenticated, or the other way round, before what follows: it is
/// still in the processor's cache.
const SLICE_BYTES: usize = 32 << 10;
/// Block of Poly1305 in bytes.
const MAC_BLOCK_BYTES: usize = 16;
const _: () = assert!(SLICE_BYTES.is_multiple_of(MAC_BLOCK_BYTES));

/// The message was not sealed with this key, or was changed since.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("authenticate the data: it was changed, cut short, or sealed with another key")]
pub struct Unauthenticated;

/// The system's random number generator failed.
#[derive(Debug, Clone, Copy, Error)]
#[error("obtain random bytes from the operating system")]
pub struct NoRandomness(#[from] getrandom::Error);

/// Fills `buffer` from the operating system's random number generator.
///
/// # Errors
/// Fails when the system has no randomness to give.
pub fn random_bytes(buffer: &mut [u8]) -> Result<(), NoRandomness> {
    getrandom::fill(buffer).map_err(NoRandomness)
}

/// Raw key material, zeroed when dropped.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct KeyMaterial {
    /// Key of AES-256-CTR.
    pub encrypt: [u8; 32],
    /// Key of the AES-128 that encrypts the IV for the authenticator.
    pub mac_k: [u8; 16],
    /// The multiplier r of Poly1305; its fixed bits are cleared when it is used.
    pub mac_r: [u8; 16],
}

impl KeyMaterial {
    /// New random key material.
    ///
    /// # Errors
    /// Fails when the system has no randomness to give.
    pub fn random() -> Result<Self, NoRandomness> {
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        random_bytes(bytes.as_mut_slice())?;
        Ok(Self::from_bytes(&bytes))
    }

    /// Splits 64 bytes, in the order in which scrypt gives them: encrypt, k, r.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; KEY_BYTES]) -> Self {
        let mut material = Self { encrypt: [0; 32], mac_k: [0; 16], mac_r: [0; 16] };
        material.encrypt.copy_from_slice(&bytes[..32]);
        material.mac_k.copy_from_slice(&bytes[32..48]);
        material.mac_r.copy_from_slice(&bytes[48..]);
        material
    }

    /// Whether every part has at least one bit set; restic refuses all-zero keys.
    #[must_use]
    pub fn is_plausible(&self) -> bool {
        let nonzero = |bytes: &[u8]| bytes.iter().any(|&byte| byte != 0);
        nonzero(&self.encrypt) && nonzero(&self.mac_k) && nonzero(&self.mac_r)
    }
}

/// AES-256 in counter mode; all 16 bytes of the IV count, as in Go.
type Keystream = StreamCipherCoreWrapper<CtrCore<Aes256, Ctr128BE>>;

/// A key ready for use: seals and opens messages. Cheap to share between threads.
pub struct Key {
    material: KeyMaterial,
    stream: Aes256,
    #[cfg(target_arch = "x86_64")]
    wide: Option<wide::WideKey>,
    mac: Aes128,
    #[cfg(target_arch = "x86_64")]
    wide_mac: Option<poly::WidePowers>,
}

impl Key {
    /// Expands key material.
    #[must_use]
    pub fn new(material: KeyMaterial) -> Self {
        let stream = Aes256::new(&material.encrypt.into());
        let mac = Aes128::new(&material.mac_k.into());
        #[cfg(target_arch = "x86_64")]
        let wide = wide::WideKey::new(&material.encrypt);
        #[cfg(target_arch = "x86_64")]
        let wide_mac = poly::WidePowers::new(&material.mac_r);
        Self {
            material,
            stream,
            #[cfg(target_arch = "x86_64")]
            wide,
            mac,
            #[cfg(target_arch = "x86_64")]
            wide_mac,
        }
    }

    /// The raw material, for wrapping it under another password.
    #[must_use]
    pub fn material(&self) -> &KeyMaterial {
        &self.material
    }

    /// Appends the sealed `plaintext` to `sealed`.
    ///
    /// # Errors
    /// Fails when the system has no randomness for the IV.
    pub fn seal(&self, plaintext: &[u8], sealed: &mut Vec<u8>) -> Result<(), NoRandomness> {
        let start = sealed.len();
        sealed.reserve_exact(plaintext.len() + OVERHEAD_BYTES);
        sealed.resize(start + plaintext.len() + OVERHEAD_BYTES, 0);
        let done = self.seal_into(plaintext, &mut sealed[start..]);
        if done.is_err() {
            sealed.truncate(start);
        }
        done
    }

    /// Replaces the content of `sealed` with the sealed `plaintext`. A buffer that is passed again
    /// and again is neither cleared nor copied to before it is written.
    ///
    /// # Errors
    /// As [`Key::seal`]; what the buffer holds then is of no use.
    pub fn seal_over(&self, plaintext: &[u8], sealed: &mut Vec<u8>) -> Result<(), NoRandomness> {
        sealed.resize(plaintext.len() + OVERHEAD_BYTES, 0);
        self.seal_into(plaintext, sealed)
    }

    /// Fills `sealed`, which is longer than `plaintext` by [`OVERHEAD_BYTES`].
    fn seal_into(&self, plaintext: &[u8], sealed: &mut [u8]) -> Result<(), NoRandomness> {
        let mut iv = [0; IV_BYTES];
        random_bytes(&mut iv)?;
        assert!(iv.iter().any(|&byte| byte != 0), "an all-zero IV means broken randomness");
        let (head, rest) = sealed.split_at_mut(IV_BYTES);
        let (body, tag) = rest.split_at_mut(plaintext.len());
        head.copy_from_slice(&iv);
        let mut authenticator = self.authenticator(&iv);
        let slices = plaintext.chunks(SLICE_BYTES).zip(body.chunks_mut(SLICE_BYTES));
        for (number, (plaintext, ciphertext)) in slices.enumerate() {
            self.encrypt_into(counter_at(&iv, number), plaintext, ciphertext);
            authenticator.update(ciphertext);
        }
        tag.copy_from_slice(&authenticator.finish());
        Ok(())
    }

    /// Whether `sealed` opens to exactly `plaintext`. Of what it opens to, a slice is in `scratch` at a
    /// time, also before it is verified; nobody else gets it.
    #[must_use]
    pub fn opens_to(&self, sealed: &[u8], plaintext: &[u8], scratch: &mut Vec<u8>) -> bool {
        let Ok((iv, body, tag)) = split(sealed) else { return false };
        if body.len() != plaintext.len() {
            return false;
        }
        let mut authenticator = self.authenticator(iv);
        scratch.resize(body.len().min(SLICE_BYTES), 0);
        let slices = body.chunks(SLICE_BYTES).zip(plaintext.chunks(SLICE_BYTES));
        let same = slices.enumerate().all(|(number, (ciphertext, plaintext))| {
            let opened = &mut scratch[..ciphertext.len()];
            authenticator.update(ciphertext);
            self.encrypt_into(counter_at(iv, number), ciphertext, opened);
            opened == plaintext
        });
        same && is_authentic(iv, &authenticator.finish(), tag)
    }

    /// Verifies `sealed` and replaces the content of `plaintext` with what it holds.
    ///
    /// # Errors
    /// Fails when the message is too short or its authenticator does not match; `plaintext` is
    /// empty then.
    pub fn open(&self, sealed: &[u8], plaintext: &mut Vec<u8>) -> Result<(), Unauthenticated> {
        let (iv, body) = self.verify(sealed).inspect_err(|_| plaintext.clear())?;
        // What is there already is written over, not cleared first.
        plaintext.resize(body.len(), 0);
        self.encrypt_into(counter_at(&iv, 0), body, plaintext);
        Ok(())
    }

    /// Verifies `sealed` and decrypts it where it lies; returns the plaintext within it.
    ///
    /// # Errors
    /// As [`Key::open`]; the buffer is unchanged then.
    pub fn open_in_place<'a>(&self, sealed: &'a mut [u8]) -> Result<&'a mut [u8], Unauthenticated> {
        let (iv, body) = self.verify(sealed)?;
        let end = IV_BYTES + body.len();
        let body = &mut sealed[IV_BYTES..end];
        self.encrypt(counter_at(&iv, 0), body);
        Ok(body)
    }

    /// Seals what stands in `message` behind [`IV_BYTES`] of room, where it lies.
    ///
    /// # Errors
    /// As [`Key::seal`]; what the buffer holds then is of no use.
    pub fn seal_in_place(&self, message: &mut Vec<u8>) -> Result<(), NoRandomness> {
        let mut iv = [0; IV_BYTES];
        random_bytes(&mut iv)?;
        assert!(iv.iter().any(|&byte| byte != 0), "an all-zero IV means broken randomness");
        let (head, body) = message.split_at_mut(IV_BYTES);
        head.copy_from_slice(&iv);
        self.encrypt(counter_at(&iv, 0), body);
        let tag = self.authenticator(&iv).of(body);
        message.reserve_exact(MAC_BYTES);
        message.extend_from_slice(&tag);
        Ok(())
    }

    fn verify<'a>(&self, sealed: &'a [u8]) -> Result<([u8; IV_BYTES], &'a [u8]), Unauthenticated> {
        let (iv, body, tag) = split(sealed)?;
        match is_authentic(iv, &self.authenticator(iv).of(body), tag) {
            true => Ok((*iv, body)),
            false => Err(Unauthenticated),
        }
    }

    /// Encrypts or decrypts `input` into `output`, which is as long.
    fn encrypt_into(&self, counter: u128, input: &[u8], output: &mut [u8]) {
        let done = 0;
        #[cfg(target_arch = "x86_64")]
        let done = match &self.wide {
            Some(key) => key.apply_into(counter, input, output),
            None => done,
        };
        self.keystream(counter, done).apply_keystream_b2b(&input[done..], &mut output[done..]);
    }

    /// Encrypts or decrypts in one buffer.
    fn encrypt(&self, counter: u128, data: &mut [u8]) {
        let done = 0;
        #[cfg(target_arch = "x86_64")]
        let done = match &self.wide {
            Some(key) => key.apply(counter, data),
            None => done,
        };
        self.keystream(counter, done).apply_keystream(&mut data[done..]);
    }

    /// The key stream from `counter` on, after `done` bytes, which are whole blocks.
    fn keystream(&self, counter: u128, done: usize) -> Keystream {
        let counter = counter.wrapping_add((done / IV_BYTES) as u128).to_be_bytes();
        let core = CtrCore::inner_iv_init(self.stream.clone(), &counter.into());
        StreamCipherCoreWrapper::from_core(core)
    }

    /// Poly1305-AES of a ciphertext.
    fn authenticator(&self, iv: &[u8; IV_BYTES]) -> Authenticator<'_> {
        #[cfg(target_arch = "x86_64")]
        if let Some(powers) = &self.wide_mac {
            let mac = Mac::Wide(powers.begin(), self.pad(iv));
            return Authenticator { mac, end: ([0; MAC_BLOCK_BYTES], 0) };
        }
        self.plain_authenticator(iv)
    }

    /// The same by the `poly1305` crate alone, which clears the fixed bits of r itself.
    fn plain_authenticator(&self, iv: &[u8; IV_BYTES]) -> Authenticator<'_> {
        let mut one_time = Zeroizing::new([0; 32]);
        one_time[..16].copy_from_slice(&self.material.mac_r);
        one_time[16..].copy_from_slice(self.pad(iv).as_slice());
        let mac = Mac::Plain(<Poly1305 as KeyInit>::new((&*one_time).into()), PhantomData);
        Authenticator { mac, end: ([0; MAC_BLOCK_BYTES], 0) }
    }

    /// What is added to the authenticator of the message with this IV.
    fn pad(&self, iv: &[u8; IV_BYTES]) -> Zeroizing<[u8; MAC_BLOCK_BYTES]> {
        let mut pad = Zeroizing::new(*iv);
        self.mac.encrypt_block((&mut *pad).into());
        pad
    }
}

/// An authenticator on its way over a ciphertext.
struct Authenticator<'k> {
    mac: Mac<'k>,
    /// What is less than a block, with which the ciphertext ends.
    end: ([u8; MAC_BLOCK_BYTES], usize),
}

#[expect(clippy::large_enum_variant, reason = "one lives at a time, as long as a message takes")]
enum Mac<'k> {
    Plain(Poly1305, PhantomData<&'k Key>),
    #[cfg(target_arch = "x86_64")]
    Wide(poly::WidePoly<'k>, Zeroizing<[u8; MAC_BLOCK_BYTES]>),
}

impl Authenticator<'_> {
    /// Adds a slice, of whole blocks unless it is the last.
    fn update(&mut self, slice: &[u8]) {
        let (blocks, end) = slice.as_chunks();
        debug_assert_eq!(self.end.1, 0, "a slice follows the end");
        match &mut self.mac {
            Mac::Plain(mac, _) => mac.update_padded(blocks.as_flattened()),
            #[cfg(target_arch = "x86_64")]
            Mac::Wide(mac, _) => mac.update(blocks),
        }
        self.end.0[..end.len()].copy_from_slice(end);
        self.end.1 = end.len();
    }

    fn finish(self) -> [u8; MAC_BYTES] {
        let end = &self.end.0[..self.end.1];
        match self.mac {
            Mac::Plain(mac, _) => mac.compute_unpadded(end).into(),
            #[cfg(target_arch = "x86_64")]
            Mac::Wide(mac, pad) => mac.finish(end, &pad),
        }
    }

    /// That of a whole ciphertext.
    fn of(mut self, body: &[u8]) -> [u8; MAC_BYTES] {
        self.update(body);
        self.finish()
    }
}

/// The parts of a sealed message: IV, ciphertext, MAC.
type Parts<'m> = (&'m [u8; IV_BYTES], &'m [u8], &'m [u8; MAC_BYTES]);

fn split(sealed: &[u8]) -> Result<Parts<'_>, Unauthenticated> {
    let (iv, rest) = sealed.split_first_chunk().ok_or(Unauthenticated)?;
    let (body, tag) = rest.split_last_chunk().ok_or(Unauthenticated)?;
    Ok((iv, body, tag))
}

fn is_authentic(iv: &[u8; IV_BYTES], found: &[u8; MAC_BYTES], tag: &[u8; MAC_BYTES]) -> bool {
    constant_time_equal(found, tag) && iv.iter().any(|&byte| byte != 0)
}

/// The counter with which the slice with this number begins.
fn counter_at(iv: &[u8; IV_BYTES], slice: usize) -> u128 {
    u128::from_be_bytes(*iv).wrapping_add((slice * SLICE_BYTES / IV_BYTES) as u128)
}

/// Compares without telling by its duration where the first difference is.
fn constant_time_equal(a: &[u8; MAC_BYTES], b: &[u8; MAC_BYTES]) -> bool {
    a.iter().zip(b).fold(0, |difference, (x, y)| difference | (x ^ y)) == 0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key() -> Key {
        let mut bytes = [0; KEY_BYTES];
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::try_from(i * 7 % 256).unwrap();
        }
        Key::new(KeyMaterial::from_bytes(&bytes))
    }

    #[test]
    fn what_is_sealed_opens() {
        for length in [0, 1, 15, 16, 17, 31, 32, 100_000] {
            let plaintext = vec![7; length];
            let mut sealed = Vec::new();
            key().seal(&plaintext, &mut sealed).unwrap();
            let mut message = [vec![1; IV_BYTES], plaintext.clone()].concat();
            key().seal_in_place(&mut message).unwrap();
            assert_eq!(message.len(), sealed.len());
            assert_eq!(key().open_in_place(&mut message).unwrap(), plaintext);
            assert_eq!(sealed.len(), length + OVERHEAD_BYTES);
            let mut opened = vec![1; 3];
            key().open(&sealed, &mut opened).unwrap();
            assert_eq!(opened, plaintext);
            assert_eq!(key().open_in_place(&mut sealed).unwrap(), &plaintext);
        }
    }

    /// The `aes` crate alone is the rule; see `wide`.
    #[test]
    fn many_blocks_at_once_are_what_they_are_one_by_one() {
        let all_ones = [255; IV_BYTES];
        // The counter overflows in its lower half, and as a whole.
        let mut half = [0; IV_BYTES];
        half[8..].fill(255);
        half[15] = 0x83;
        for iv in [[7; IV_BYTES], half, all_ones] {
            for length in [0, 1, 16, 255, 256, 257, 511, 512, 5_000] {
                let plaintext: Vec<u8> = (0..length).map(|n: u32| n.to_le_bytes()[0]).collect();
                let mut expected = plaintext.clone();
                key().keystream(u128::from_be_bytes(iv), 0).apply_keystream(&mut expected);
                let mut output = vec![0; plaintext.len()];
                key().encrypt_into(u128::from_be_bytes(iv), &plaintext, &mut output);
                assert_eq!(output, expected, "{length} bytes into another buffer");
                let mut data = plaintext;
                key().encrypt(u128::from_be_bytes(iv), &mut data);
                assert_eq!(data, expected, "{length} bytes in one buffer");
            }
        }
    }

    /// Slices are what one go is, and are opened and compared like it.
    #[test]
    fn slices_are_sealed_as_one_message() {
        let mut scratch = vec![7; 3];
        for length in
            [0, 1, 15, 16, SLICE_BYTES - 1, SLICE_BYTES, SLICE_BYTES + 1, 2 * SLICE_BYTES + 17]
        {
            let plaintext: Vec<u8> =
                (0..length).map(|n| (n * 31 + n / 251).to_le_bytes()[0]).collect();
            let mut sealed = Vec::new();
            key().seal(&plaintext, &mut sealed).unwrap();
            let (iv, body, tag) = split(&sealed).unwrap();
            let mut expected = plaintext.clone();
            key().keystream(counter_at(iv, 0), 0).apply_keystream(&mut expected);
            assert_eq!(body, expected, "{length} bytes");
            assert_eq!(&key().plain_authenticator(iv).of(body), tag, "{length} bytes");

            assert!(key().opens_to(&sealed, &plaintext, &mut scratch));
            for at in [0, IV_BYTES, sealed.len() / 2, sealed.len() - MAC_BYTES, sealed.len() - 1] {
                let mut changed = sealed.clone();
                changed[at] ^= 1;
                assert!(
                    !key().opens_to(&changed, &plaintext, &mut scratch),
                    "{length} bytes, {at}"
                );
            }
            assert!(!key().opens_to(&sealed[..sealed.len() - 1], &plaintext, &mut scratch));
            assert!(!key().opens_to(&sealed, &[&plaintext[..], b"x"].concat(), &mut scratch));
            for at in
                [0, length / 2, length.saturating_sub(1)].into_iter().filter(|&at| at < length)
            {
                let mut other = plaintext.clone();
                other[at] ^= 1;
                assert!(!key().opens_to(&sealed, &other, &mut scratch), "{length} bytes, {at}");
            }
        }
    }

    #[test]
    fn the_counter_goes_on_from_slice_to_slice() {
        let mut low_half = [0; IV_BYTES];
        low_half[8..].fill(255);
        for iv in [[255; IV_BYTES], low_half] {
            let plaintext: Vec<u8> =
                (0..2 * SLICE_BYTES + 17).map(|n| (n * 31 + n / 251).to_le_bytes()[0]).collect();
            let mut body = plaintext.clone();
            key().keystream(counter_at(&iv, 0), 0).apply_keystream(&mut body);
            let tag = key().plain_authenticator(&iv).of(&body);
            let sealed = [&iv[..], &body, &tag].concat();
            assert!(key().opens_to(&sealed, &plaintext, &mut Vec::new()), "{iv:?}");
        }
    }

    /// The `poly1305` crate alone is the rule; see `poly`.
    fn assert_same_authenticator(r: [u8; 16], iv: [u8; IV_BYTES], parts: &[&[u8]]) {
        let key = Key::new(KeyMaterial { encrypt: [1; 32], mac_k: [2; 16], mac_r: r });
        let mut authenticator = key.authenticator(&iv);
        parts.iter().for_each(|part| authenticator.update(part));
        let expected = key.plain_authenticator(&iv).of(&parts.concat());
        assert_eq!(authenticator.finish(), expected, "{r:?} {iv:?}");
    }

    #[test]
    fn many_blocks_are_authenticated_as_one_by_one() {
        let ones = [255; 5_000];
        let zeros = [0; 5_000];
        // With r = 1, three blocks of it are 2^130 - 1, which is more than the modulus.
        let mut edge = zeros;
        edge[..16].fill(255);
        let counted: Vec<u8> = (0..5_000_u32).map(|n| (n * 7 + n / 256).to_le_bytes()[0]).collect();
        // The largest r, the least, and one of which the fixed bits alone are set.
        let mut fixed = [0; 16];
        for at in [3, 7, 11, 15] {
            fixed[at] = 0xf0;
        }
        for at in [4, 8, 12] {
            fixed[at] = 3;
        }
        let mut one = [0; 16];
        one[0] = 1;
        for r in [[255; 16], [0; 16], one, fixed, [0x5a; 16]] {
            for message in [&ones[..], &zeros, &edge, &counted] {
                for length in (0..300).chain([1_000, 4_095, 4_096, 4_999]) {
                    let message = &message[..length];
                    assert_same_authenticator(r, [9; IV_BYTES], &[message]);
                    let whole = length / 3 / MAC_BLOCK_BYTES * MAC_BLOCK_BYTES;
                    let (first, second) = message.split_at(whole);
                    assert_same_authenticator(r, [9; IV_BYTES], &[first, second]);
                }
            }
        }
    }

    proptest! {
        #[test]
        fn authenticators_agree_on_every_message(
            r: [u8; 16],
            iv: [u8; IV_BYTES],
            parts in proptest::collection::vec(0_usize..40, 0..4),
            seed: u64,
            end in 0_usize..16,
        ) {
            let blocks: usize = parts.iter().sum();
            let mut state = seed | 1;
            let message: Vec<u8> = std::iter::repeat_with(|| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                // Many are all ones, which carry the furthest.
                if state % 3 == 0 { 255 } else { state.to_le_bytes()[2] }
            })
            .take(blocks * MAC_BLOCK_BYTES + end)
            .collect();
            let mut left = &message[..];
            let mut pieces = Vec::new();
            for part in parts {
                let (piece, rest) = left.split_at(part * MAC_BLOCK_BYTES);
                pieces.push(piece);
                left = rest;
            }
            pieces.push(left);
            assert_same_authenticator(r, iv, &pieces);
        }
    }

    #[test]
    fn any_flipped_bit_and_any_shortening_is_noticed() {
        let mut sealed = Vec::new();
        key().seal(b"attack at dawn", &mut sealed).unwrap();
        let mut opened = Vec::new();
        for bit in 0..sealed.len() * 8 {
            let mut changed = sealed.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(key().open(&changed, &mut opened), Err(Unauthenticated), "bit {bit}");
            assert!(opened.is_empty());
        }
        for length in 0..sealed.len() {
            assert_eq!(key().open(&sealed[..length], &mut opened), Err(Unauthenticated));
        }
    }

    /// The counter is 128 bits wide: the carry goes out of the low 64 bits. The expected
    /// bytes come from single AES blocks, not from the counter mode under test.
    #[test]
    fn the_counter_carries_into_its_upper_half() {
        let key = key();
        let mut iv = [0xff; IV_BYTES];
        iv[0] = 1;
        let mut stream = vec![0; 48];
        key.keystream(u128::from_be_bytes(iv), 0).apply_keystream(&mut stream);
        let start = u128::from_be_bytes(iv);
        for (i, block) in stream.chunks_exact(16).enumerate() {
            let mut expected = start.wrapping_add(i as u128).to_be_bytes().into();
            key.stream.encrypt_block(&mut expected);
            assert_eq!(block, expected.as_slice(), "block {i}");
        }
    }

    /// Test vector of the Poly1305-AES paper, appendix B (first of four).
    #[test]
    fn the_authenticator_is_poly1305_aes() {
        let material = KeyMaterial {
            encrypt: [1; 32],
            mac_k: [
                0xec, 0x07, 0x4c, 0x83, 0x55, 0x80, 0x74, 0x17, 0x01, 0x42, 0x5b, 0x62, 0x32, 0x35,
                0xad, 0xd6,
            ],
            mac_r: [
                0x85, 0x1f, 0xc4, 0x0c, 0x34, 0x67, 0xac, 0x0b, 0xe0, 0x5c, 0xc2, 0x04, 0x04, 0xf3,
                0xf7, 0x00,
            ],
        };
        let nonce = [
            0xfb, 0x44, 0x73, 0x50, 0xc4, 0xe8, 0x68, 0xc5, 0x2a, 0xc3, 0x27, 0x5c, 0xf9, 0xd4,
            0x32, 0x7e,
        ];
        let expected = [
            0xf4, 0xc6, 0x33, 0xc3, 0x04, 0x4f, 0xc1, 0x45, 0xf8, 0x4f, 0x33, 0x5c, 0xb8, 0x19,
            0x53, 0xde,
        ];
        assert_eq!(Key::new(material).authenticator(&nonce).of(&[0xf3, 0xf6]), expected);
    }

    #[test]
    fn an_all_zero_key_is_refused() {
        assert!(!KeyMaterial::from_bytes(&[0; KEY_BYTES]).is_plausible());
        assert!(KeyMaterial::random().unwrap().is_plausible());
    }
}
