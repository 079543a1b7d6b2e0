//! Signed notes: text and who signed it, in a form that a person can read and copy.
//!
//! A key's name and four bytes of a hash stand beside each signature, so a reader knows which key
//! to try; trust comes from having the key beforehand and never from the note. The same line form
//! writes down public keys (`name+hash+base64`) and, with `PRIVATE+KEY+` before it, private ones.
//!
//! # Source
//! C2SP signed-note; the private form is that of `golang.org/x/mod/sumdb/note`.

use std::{fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use sha2::{Digest as _, Sha256};
use thiserror::Error;
use zeroize::Zeroizing;

/// The signature type of Ed25519 in signed notes.
const ED25519: u8 = 1;
/// An em dash and a space begin a signature line.
const SIGNATURE_START: &str = "\u{2014} ";
const PRIVATE_START: &str = "PRIVATE+KEY+";
/// More lines than anybody signs with; a bound on the work that a stranger's note can cause.
const SIGNATURES_MAX: usize = 100;

/// Why a note, or a key, is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum NoteError {
    /// The text is not `name+hash+base64`, or its hash or its key is wrong.
    #[error("not an Ed25519 key in the form 'name+hash+base64'")]
    Key,
    /// The text is not a signed note.
    #[error("not a signed note")]
    Form,
    /// No signature names the key.
    #[error("not signed by this key")]
    Unsigned,
    /// A signature names the key and is wrong.
    #[error("the signature does not belong to this text")]
    Signature,
}

/// A public key with its name: who may have signed.
#[derive(Clone, PartialEq, Eq)]
pub struct VerifierKey {
    name: String,
    key: VerifyingKey,
}

impl VerifierKey {
    /// Gives the name, which for a ledger's key is the ledger's origin.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Gives the key itself, 32 bytes as RFC 8032 writes them.
    #[must_use]
    pub fn public_key(&self) -> [u8; 32] {
        self.key.to_bytes()
    }

    /// Gives what names the key beside a DSSE signature: its name, `+`, and the hash.
    #[must_use]
    pub fn key_id(&self) -> String {
        format!("{}+{:08x}", self.name, self.hash())
    }

    /// Tells whether a signature over a message is this key's. Strict: no second signature for
    /// the same message can be made from a first, and no weak key accepts everything.
    #[must_use]
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        Signature::from_slice(signature)
            .is_ok_and(|signature| self.key.verify_strict(message, &signature).is_ok())
    }

    fn hash(&self) -> u32 {
        let hasher = Sha256::new().chain_update(&self.name).chain_update([b'\n', ED25519]);
        let digest = hasher.chain_update(self.key.as_bytes()).finalize();
        u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]])
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = vec![ED25519];
        bytes.extend_from_slice(self.key.as_bytes());
        write!(f, "{}+{:08x}+{}", self.name, self.hash(), STANDARD.encode(bytes))
    }
}

impl fmt::Debug for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifierKey({self})")
    }
}

impl FromStr for VerifierKey {
    type Err = NoteError;

    fn from_str(text: &str) -> Result<Self, NoteError> {
        let (name, bytes) = parse_key(text)?;
        let key = VerifyingKey::from_bytes(&bytes).map_err(|_| NoteError::Key)?;
        let parsed = Self { name: name.to_owned(), key };
        // The hash, and whatever else could be written in two ways.
        if parsed.to_string() == text && !key.is_weak() { Ok(parsed) } else { Err(NoteError::Key) }
    }
}

fn parse_key(text: &str) -> Result<(&str, Zeroizing<[u8; 32]>), NoteError> {
    let mut parts = text.splitn(3, '+');
    let (Some(name), Some(_hash), Some(base64)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(NoteError::Key);
    };
    let bytes = Zeroizing::new(STANDARD.decode(base64).map_err(|_| NoteError::Key)?);
    match bytes.split_first() {
        Some((&ED25519, key)) if is_name(name) => {
            Ok((name, Zeroizing::new(key.try_into().map_err(|_| NoteError::Key)?)))
        }
        _ => Err(NoteError::Key),
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c.is_control() || c == '+')
}

/// A private key with its name: who signs. Overwritten in memory when dropped.
pub struct SignerKey {
    name: String,
    key: SigningKey,
}

impl SignerKey {
    /// Takes a name and the 32 bytes of an Ed25519 seed for a key; `None` when the name is empty
    /// or has white space or `+` in it.
    #[must_use]
    pub fn from_seed(name: &str, seed: &[u8; 32]) -> Option<Self> {
        is_name(name).then(|| Self { name: name.to_owned(), key: SigningKey::from_bytes(seed) })
    }

    /// Gives the public half.
    #[must_use]
    pub fn verifier(&self) -> VerifierKey {
        VerifierKey { name: self.name.clone(), key: self.key.verifying_key() }
    }

    /// Signs a message with the bare key.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.key.sign(message).to_bytes()
    }

    /// Signs a text, which must end in a line feed, and gives the note.
    #[must_use]
    pub fn sign_note(&self, text: &str) -> String {
        debug_assert!(text.ends_with('\n'), "a note's text ends in a line feed");
        let mut signature = self.verifier().hash().to_be_bytes().to_vec();
        signature.extend_from_slice(&self.sign(text.as_bytes()));
        format!("{text}\n{SIGNATURE_START}{} {}\n", self.name, STANDARD.encode(signature))
    }

    /// Writes the private key down.
    pub(crate) fn to_text(&self) -> Zeroizing<String> {
        let mut bytes = Zeroizing::new(vec![ED25519]);
        bytes.extend_from_slice(self.key.as_bytes());
        let base64 = Zeroizing::new(STANDARD.encode(&*bytes));
        Zeroizing::new(format!("{PRIVATE_START}{}+{}\n", self.verifier().key_id(), *base64))
    }

    /// Reads what [`Self::to_text`] wrote.
    pub(crate) fn from_text(text: &str) -> Result<Self, NoteError> {
        let line = text.strip_suffix('\n').unwrap_or(text);
        let (name, seed) = parse_key(line.strip_prefix(PRIVATE_START).ok_or(NoteError::Key)?)?;
        let key = Self::from_seed(name, &seed).ok_or(NoteError::Key)?;
        if key.to_text().trim_end() == line { Ok(key) } else { Err(NoteError::Key) }
    }
}

impl fmt::Debug for SignerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignerKey").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Gives the text of a note, when this key signed it. Signatures of others are ignored.
///
/// # Errors
/// Fails when this is no note, or this key's signature is not there or wrong.
pub fn open_note<'a>(note: &'a str, key: &VerifierKey) -> Result<&'a str, NoteError> {
    let is_bad = |c: char| c.is_ascii_control() && c != '\n';
    if note.contains(is_bad) {
        return Err(NoteError::Form);
    }
    let end = note.rfind("\n\n").ok_or(NoteError::Form)?;
    let (text, signatures) = (&note[..=end], &note[end + 2..]);
    let signatures = signatures.strip_suffix('\n').ok_or(NoteError::Form)?;
    let mut found = Err(NoteError::Unsigned);
    for (i, line) in signatures.split('\n').enumerate() {
        let (name, bytes) =
            signature_line(line).filter(|_| i < SIGNATURES_MAX).ok_or(NoteError::Form)?;
        if name == key.name && bytes[..4] == key.hash().to_be_bytes() {
            if !key.verify(text.as_bytes(), &bytes[4..]) {
                return Err(NoteError::Signature);
            }
            found = Ok(text);
        }
    }
    found
}

fn signature_line(line: &str) -> Option<(&str, Vec<u8>)> {
    let (name, base64) = line.strip_prefix(SIGNATURE_START)?.split_once(' ')?;
    let bytes = STANDARD.decode(base64).ok()?;
    (is_name(name) && bytes.len() > 4).then_some((name, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    // The example of the Go package that signed notes come from.
    const SIGNER: &str =
        "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz\n";
    const VERIFIER: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    const TEXT: &str = "If you think cryptography is the answer to your problem,\n\
                        then you don't know what your problem is.\n";
    const NOTE: &str = "If you think cryptography is the answer to your problem,\n\
        then you don't know what your problem is.\n\n\
        \u{2014} PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";

    #[test]
    fn notes_are_those_of_the_reference() {
        let signer = SignerKey::from_text(SIGNER).unwrap();
        assert_eq!(signer.verifier().to_string(), VERIFIER);
        assert_eq!(signer.sign_note(TEXT), NOTE);
        assert_eq!(open_note(NOTE, &VERIFIER.parse().unwrap()), Ok(TEXT));
        assert_eq!(*signer.to_text(), SIGNER);
    }

    #[test]
    fn every_changed_byte_of_a_note_is_refused() {
        let key: VerifierKey = VERIFIER.parse().unwrap();
        for at in 0..NOTE.len() {
            for mask in [1, 2, 0x20, 0x80] {
                let mut bytes = NOTE.as_bytes().to_vec();
                bytes[at] ^= mask;
                let Ok(note) = String::from_utf8(bytes) else { continue };
                assert!(open_note(&note, &key).is_err(), "byte {at} {mask:x}");
            }
        }
    }

    #[test]
    fn every_changed_byte_of_a_key_is_refused() {
        for at in 0..VERIFIER.len() {
            let mut bytes = VERIFIER.as_bytes().to_vec();
            bytes[at] ^= 1;
            let text = String::from_utf8(bytes).unwrap();
            assert_eq!(text.parse::<VerifierKey>(), Err(NoteError::Key), "{text}");
        }
    }

    #[test]
    fn signatures_of_others_are_ignored() {
        let other = SignerKey::from_seed("witness.example", &[7; 32]).unwrap();
        let both = format!("{NOTE}{}", other.sign_note(TEXT).rsplit_once("\n\n").unwrap().1);
        assert_eq!(open_note(&both, &VERIFIER.parse().unwrap()), Ok(TEXT));
        assert_eq!(open_note(&both, &other.verifier()), Ok(TEXT));
        assert_eq!(open_note(NOTE, &other.verifier()), Err(NoteError::Unsigned));
        // One that bears the key's name and hash must be right.
        let forged = NOTE.replace("x08go/ZJ", "x08go/ZK");
        let both = format!("{NOTE}{}", forged.rsplit_once("\n\n").unwrap().1);
        assert_eq!(open_note(&both, &VERIFIER.parse().unwrap()), Err(NoteError::Signature));
    }

    #[test]
    fn private_keys_are_not_shown() {
        let signer = SignerKey::from_text(SIGNER).unwrap();
        assert_eq!(format!("{signer:?}"), "SignerKey { name: \"PeterNeumann\", .. }");
    }
}
