//! Checkpoints: the whole log in three lines and a signature.
//!
//! Whoever keeps one, on paper if need be, can tell later whether the log was rewritten: even
//! the holder of the signing key cannot make a tree with another past and the same root.
//!
//! # Source
//! C2SP tlog-checkpoint.

use crate::merkle::Hash;
use crate::note::{NoteError, SignerKey, VerifierKey, open_note};

/// What a log was at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which log; also the name of the key that signs.
    pub origin: String,
    /// How many entries it had.
    pub size: u64,
    /// The root of the tree over them.
    pub root: Hash,
}

/// A checkpoint and the note that says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedCheckpoint {
    /// What is said.
    pub checkpoint: Checkpoint,
    /// The signed note: what to publish and to keep.
    pub note: String,
}

impl Checkpoint {
    /// Gives the text that is signed.
    #[must_use]
    pub fn to_text(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, self.root.to_base64())
    }

    fn from_text(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let origin = lines.next()?.to_owned();
        let size = lines.next()?.parse().ok()?;
        let checkpoint = Self { origin, size, root: Hash::from_base64(lines.next()?)? };
        (checkpoint.to_text() == text).then_some(checkpoint)
    }

    /// Signs the checkpoint.
    pub(crate) fn sign(self, key: &SignerKey) -> SignedCheckpoint {
        let note = key.sign_note(&self.to_text());
        SignedCheckpoint { checkpoint: self, note }
    }

    /// Reads a checkpoint that this key signed, for the log that is called like the key.
    /// Signatures of others, such as witnesses, are ignored.
    ///
    /// # Errors
    /// Fails when the text is no such note, or says anything besides the three lines.
    pub fn open(note: &str, key: &VerifierKey) -> Result<Self, NoteError> {
        let checkpoint = Self::from_text(open_note(note, key)?).ok_or(NoteError::Form)?;
        if checkpoint.origin == key.name() { Ok(checkpoint) } else { Err(NoteError::Unsigned) }
    }
}

impl SignedCheckpoint {
    /// Reads a note that holds this one signature and is written in the one way there is.
    pub(crate) fn open_exact(note: &str, key: &VerifierKey) -> Result<Self, NoteError> {
        let checkpoint = Checkpoint::open(note, key)?;
        let signatures = note.rsplit_once("\n\n").map_or(0, |(_, lines)| lines.lines().count());
        if signatures != 1 {
            return Err(NoteError::Form);
        }
        Ok(Self { checkpoint, note: note.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // The example of the specification.
    const NOTE: &str = "example.com/behind-the-sofa\n20852163\n\
        CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n\
        \u{2014} example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n";

    #[test]
    fn texts_are_those_of_the_specification() {
        let text = &NOTE[..=NOTE.rfind("\n\n").unwrap()];
        let checkpoint = Checkpoint::from_text(text).unwrap();
        assert_eq!(checkpoint.size, 20_852_163);
        assert_eq!(checkpoint.to_text(), text);
        for bad in ["a\n01\n", "a\n+1\n", "a\n1\nx\n", ""] {
            assert_eq!(Checkpoint::from_text(bad), None);
        }
        assert_eq!(Checkpoint::from_text(&format!("{text}extension\n")), None);
    }

    #[test]
    fn the_key_speaks_for_its_own_log_only() {
        let key = SignerKey::from_seed("a.example", &[1; 32]).unwrap();
        let root = Hash::of(b"");
        let sign =
            |origin: &str| Checkpoint { origin: origin.to_owned(), size: 0, root }.sign(&key);
        let signed = sign("a.example");
        assert_eq!(Checkpoint::open(&signed.note, &key.verifier()), Ok(signed.checkpoint));
        let other = Checkpoint::open(&sign("b.example").note, &key.verifier());
        assert_eq!(other, Err(NoteError::Unsigned));
    }
}
