//! Evidence: statements about what was observed, signed so that others' tools can read them.
//!
//! A statement says of which things (subjects, by digest) a predicate holds; an envelope signs
//! its exact bytes. Both are the formats that supply-chain policy engines know already. The type
//! of the payload is inside what is signed, so that no signature can be moved from one kind of
//! document to another.
//!
//! # Source
//! DSSE v1 (`protocol.md`, `envelope.md`); in-toto Statement v1; the in-toto predicate
//! `https://in-toto.io/attestation/test-result/v0.1`.

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use thiserror::Error;

use crate::canonical;
use crate::merkle::Hash;
use crate::note::{SignerKey, VerifierKey};

/// The predicate of a drill's full record.
pub const DRILL_PREDICATE: &str = "https://github.com/muster-dr/muster/attestation/drill/v1";
/// The predicate of in-toto that tells a test's result.
pub const TEST_RESULT_PREDICATE: &str = "https://in-toto.io/attestation/test-result/v0.1";
/// The type of every statement.
pub const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
/// The payload type of envelopes with statements.
pub const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";

/// How a test went as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TestResult {
    /// Every test passed.
    Passed,
    /// Passed, with warnings.
    Warned,
    /// At least one failed.
    Failed,
}

impl TestResult {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Passed => "PASSED",
            Self::Warned => "WARNED",
            Self::Failed => "FAILED",
        }
    }
}

/// Says that a predicate holds of subjects, each a name and the SHA-256 of its content in
/// hexadecimal digits.
#[must_use]
pub fn statement(subjects: &[(&str, &str)], predicate_type: &str, predicate: &Value) -> Value {
    json!({
        "_type": STATEMENT_TYPE,
        "subject": descriptors(subjects),
        "predicateType": predicate_type,
        "predicate": predicate,
    })
}

/// Says how tests of the subjects went, under which configuration (names and SHA-256, as
/// subjects), with the names of the tests that passed, passed with warnings, and failed.
#[must_use]
pub fn test_result(
    subjects: &[(&str, &str)],
    result: TestResult,
    configuration: &[(&str, &str)],
    passed: &[&str],
    warned: &[&str],
    failed: &[&str],
) -> Value {
    let predicate = json!({
        "result": result.as_str(),
        "configuration": descriptors(configuration),
        "passedTests": passed,
        "warnedTests": warned,
        "failedTests": failed,
    });
    statement(subjects, TEST_RESULT_PREDICATE, &predicate)
}

fn descriptors(things: &[(&str, &str)]) -> Vec<Value> {
    let descriptor =
        |(name, sha256): &(&str, &str)| json!({"name": name, "digest": {"sha256": sha256}});
    things.iter().map(descriptor).collect()
}

/// A signed payload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Envelope {
    /// What kind of document the payload is.
    pub payload_type: String,
    /// The payload in base64.
    pub payload: String,
    /// Who signed it.
    pub signatures: Vec<EnvelopeSignature>,
}

/// A signature in an envelope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvelopeSignature {
    /// Which key; a hint that is not signed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub keyid: String,
    /// The signature in base64.
    pub sig: String,
}

/// Why an envelope is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum EnvelopeError {
    /// It is not the JSON of an envelope, or its payload is not base64.
    #[error("it is not a DSSE envelope")]
    Form,
    /// No signature in it is the key's over this payload and type.
    #[error("it is not signed by this key")]
    Signature,
}

/// Signs a statement.
#[must_use]
pub fn seal(key: &SignerKey, statement: &Value) -> Envelope {
    seal_bytes(key, PAYLOAD_TYPE, canonical::encode(statement).as_bytes())
}

/// Signs any payload under its type.
#[must_use]
pub fn seal_bytes(key: &SignerKey, payload_type: &str, payload: &[u8]) -> Envelope {
    let signature = EnvelopeSignature {
        keyid: key.verifier().key_id(),
        sig: STANDARD.encode(key.sign(&pae(payload_type, payload))),
    };
    Envelope {
        payload_type: payload_type.to_owned(),
        payload: STANDARD.encode(payload),
        signatures: vec![signature],
    }
}

/// What is signed: the type and the payload, each with its length.
///
/// # Source
/// DSSE v1, `protocol.md`, *Signature Definition*.
#[must_use]
pub fn pae(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let head = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len());
    [head.as_bytes(), payload].concat()
}

impl Envelope {
    /// Gives the envelope as canonical JSON: the bytes to keep, and to name by their SHA-256.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let value = serde_json::to_value(self).expect("an envelope is text all through");
        canonical::encode(&value).into_bytes()
    }

    /// Gives the SHA-256 of [`Self::to_bytes`] in hexadecimal digits: the envelope's name.
    #[must_use]
    pub fn sha256(&self) -> String {
        Hash::of(&self.to_bytes()).to_string()
    }

    /// Reads an envelope.
    ///
    /// # Errors
    /// Fails when the bytes are not the JSON of one.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, EnvelopeError> {
        serde_json::from_slice(bytes).map_err(|_| EnvelopeError::Form)
    }

    /// Gives the payload's bytes, when this key signed them. Signatures of others are ignored.
    ///
    /// # Errors
    /// Fails when the payload is not base64 and when no signature is this key's.
    pub fn verify(&self, key: &VerifierKey) -> Result<Vec<u8>, EnvelopeError> {
        let payload = decode(&self.payload).ok_or(EnvelopeError::Form)?;
        let message = pae(&self.payload_type, &payload);
        // The hint is not believed: each signature is tried.
        let is_ours = |signature: &EnvelopeSignature| {
            decode(&signature.sig).is_some_and(|bytes| key.verify(&message, &bytes))
        };
        let is_signed = self.signatures.iter().any(is_ours);
        if is_signed { Ok(payload) } else { Err(EnvelopeError::Signature) }
    }

    /// Gives the statement, when this key signed it and it is one.
    ///
    /// # Errors
    /// As [`Self::verify`]; also when payload or type are not those of a statement.
    pub fn verify_statement(&self, key: &VerifierKey) -> Result<Value, EnvelopeError> {
        let payload = self.verify(key)?;
        let statement: Value = serde_json::from_slice(&payload).map_err(|_| EnvelopeError::Form)?;
        let is_statement =
            self.payload_type == PAYLOAD_TYPE && statement["_type"] == STATEMENT_TYPE;
        if is_statement { Ok(statement) } else { Err(EnvelopeError::Form) }
    }
}

/// Reads base64 in either alphabet, as envelopes allow.
fn decode(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).or_else(|_| URL_SAFE.decode(text)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first key of RFC 8032, section 7.1.
    fn key() -> SignerKey {
        let seed = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
        SignerKey::from_seed("A", Hash::from_hex(seed).unwrap().as_bytes()).unwrap()
    }

    #[test]
    fn what_is_signed_is_as_in_the_specification() {
        let expected = b"DSSEv1 29 http://example.com/HelloWorld 11 hello world";
        assert_eq!(pae("http://example.com/HelloWorld", b"hello world"), expected);
        // Lengths are of bytes, not of characters; an empty payload keeps its space.
        assert_eq!(pae("é", b""), "DSSEv1 2 é 0 ".as_bytes());
    }

    #[test]
    fn signatures_are_as_other_implementations_make_them() {
        let check = |payload_type: &str, payload: &[u8], sig: &str| {
            let envelope = seal_bytes(&key(), payload_type, payload);
            assert_eq!(envelope.signatures[0].sig, sig);
            assert_eq!(envelope.verify(&key().verifier()).as_deref(), Ok(payload));
        };
        check(PAYLOAD_TYPE, br#"{"_type":"https://in-toto.io/Statement/v1"}"#, VECTORS[0]);
        check(PAYLOAD_TYPE, b"", VECTORS[1]);
        check("http://example.com/HelloWorld", b"hello world", VECTORS[2]);
    }

    // Made with Python's `cryptography` from the same seed and the encoding above.
    const VECTORS: [&str; 3] = [
        "2WAfaHm5jluo0w+0rk8uVkluELJYWjSmU9x7EUzx+AyteDGJ4/nqyJXfmAUVFIAoQafWm7AxBZNw5M9ixNHiCA==",
        "gSggCAaTLTYyRH6FIDBem6meyIynsYy8RTHVzwx9tnTb7Bg/1jMWnuVgI/gffqmbsC2VX5/jHfkkDqsj7CDbDg==",
        "4DHX3Zn4qpBKvEj7maE8O9u9bjXEnPLLnyXVUJ2PXJR8DSLcL3QDpFvfJOj3pB/SPHsl6Jg4boxsMb6KvuYABw==",
    ];

    #[test]
    fn every_changed_byte_is_refused() {
        let subjects = [("plan", "00"), ("point", "01")];
        let sealed = seal(&key(), &statement(&subjects, DRILL_PREDICATE, &json!({"drill": 1})));
        let bytes = sealed.to_bytes();
        assert!(sealed.verify_statement(&key().verifier()).is_ok());
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            let Ok(envelope) = Envelope::from_bytes(&changed) else { continue };
            let is_hint = envelope.signatures[0].keyid != sealed.signatures[0].keyid;
            let result = envelope.verify_statement(&key().verifier());
            assert!(result.is_err() || is_hint, "byte {at}");
        }
    }

    #[test]
    fn the_type_is_signed() {
        let mut envelope = seal(&key(), &statement(&[], DRILL_PREDICATE, &json!({})));
        envelope.payload_type = "text/plain".to_owned();
        assert_eq!(envelope.verify(&key().verifier()), Err(EnvelopeError::Signature));
    }

    #[test]
    fn a_sealed_payload_that_is_no_statement_is_refused() {
        let envelope = seal(&key(), &json!({"_type": "https://in-toto.io/Statement/v0.1"}));
        assert_eq!(envelope.verify_statement(&key().verifier()), Err(EnvelopeError::Form));
    }

    #[test]
    fn signatures_of_others_do_not_disturb() {
        let other = SignerKey::from_seed("reviewer", &[3; 32]).unwrap();
        let statement = statement(&[], DRILL_PREDICATE, &json!({}));
        let mut envelope = seal(&other, &statement);
        assert_eq!(envelope.verify(&key().verifier()), Err(EnvelopeError::Signature));
        envelope.signatures.extend(seal(&key(), &statement).signatures);
        assert!(envelope.verify(&key().verifier()).is_ok());
        assert!(envelope.verify(&other.verifier()).is_ok());
    }
}
