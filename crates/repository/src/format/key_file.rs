//! Key files: the master key, sealed with a key derived from a password.
//!
//! # Source
//! restic, `doc/design.rst`, *Keys, Encryption and MAC*; RFC 7914 (scrypt).

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{FormatError, time::Timestamp};
use crate::crypto::{
    KEY_BYTES, Key, KeyMaterial, NoRandomness, OVERHEAD_BYTES, random_bytes, scrypt,
};

/// The longest key file that is read; real ones are about 450 bytes.
pub const KEY_FILE_BYTES_MAX: u64 = 64 << 10;

/// Length of the salt in bytes; restic refuses any other.
const SALT_BYTES: usize = 64;

/// Most memory that a key file may make scrypt take: 128 × N × r bytes for each lane that is under
/// way, and 128 × r × p for what lanes begin with. restic's own calibration stays below 60 MB.
const SCRYPT_BYTES_MAX: u64 = 1 << 30;

/// Most work that a key file may make scrypt do: N × r × p, 64 times that of a new key.
const SCRYPT_WORK_MAX: u64 = 64 * (1 << 15) * 8 * 3;

/// Cost of scrypt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    /// log2 of N, the number of blocks.
    log_n: u8,
    /// Block size factor.
    r: u32,
    /// Passes.
    p: u32,
}

impl Cost {
    /// The cost of every key that Muster makes: N = 2^15, r = 8, p = 3, so 32 MiB of memory
    /// three times. OWASP's password storage sheet names it as a minimum.
    pub const STANDARD: Self = Self { log_n: 15, r: 8, p: 3 };

    /// Cheap enough for tests which open hundreds of repositories. No key that protects
    /// anything is made with it, so it exists in test builds only.
    #[cfg(any(test, feature = "testing"))]
    pub const FOR_TESTS: Self = Self { log_n: 4, r: 1, p: 1 };

    fn from_file(n: u64, r: u32, p: u32) -> Result<Self, FormatError> {
        let log_n = u8::try_from(n.ilog2_or_zero()).unwrap_or(u8::MAX);
        let valid = n.is_power_of_two() && n > 1 && r > 0 && p > 0;
        let product = |a: u64, b: u32| a.saturating_mul(u64::from(b));
        let memory = product(128 * n.min(1 << 40), r).max(product(product(128, r), p));
        let work = product(product(n, r), p);
        if !valid || memory > SCRYPT_BYTES_MAX || work > SCRYPT_WORK_MAX {
            let text = format!("scrypt parameters N={n} r={r} p={p} are out of bounds");
            return Err(FormatError::invalid(text));
        }
        Ok(Self { log_n, r, p })
    }
}

/// `ilog2` that does not panic at zero.
trait Log2 {
    fn ilog2_or_zero(self) -> u32;
}

impl Log2 for u64 {
    fn ilog2_or_zero(self) -> u32 {
        self.checked_ilog2().unwrap_or(0)
    }
}

/// A key file's content.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct KeyFile {
    /// When the key was added; the epoch when the file does not say (rustic's do not).
    #[serde(default = "unknown_time")]
    pub created: Timestamp,
    /// Who added it.
    #[serde(default)]
    pub username: String,
    /// On which host.
    #[serde(default)]
    pub hostname: String,
    kdf: String,
    #[serde(rename = "N")]
    n: u64,
    r: u32,
    p: u32,
    #[serde(with = "super::base64_bytes")]
    salt: Vec<u8>,
    #[serde(with = "super::base64_bytes")]
    data: Vec<u8>,
}

/// Who adds a key and when, as the key file records it.
#[derive(Debug, Clone)]
pub struct Author {
    /// The user's name.
    pub username: String,
    /// The host's name.
    pub hostname: String,
    /// The time.
    pub created: Timestamp,
}

/// A key file could not be made or opened.
#[derive(Debug, thiserror::Error)]
pub enum WrapError {
    /// The password does not open this key.
    #[error("open the key with this password")]
    WrongPassword,
    /// The file is not a sound key file.
    #[error("{0}")]
    Format(#[from] FormatError),
    /// No randomness for salt or IV.
    #[error("{0}")]
    NoRandomness(#[from] NoRandomness),
}

/// The master key as JSON inside the sealed part.
#[derive(Serialize, Deserialize)]
struct MasterJson {
    mac: MacJson,
    #[serde(with = "super::base64_secret")]
    encrypt: Zeroizing<Vec<u8>>,
}

#[derive(Serialize, Deserialize)]
struct MacJson {
    #[serde(with = "super::base64_secret")]
    k: Zeroizing<Vec<u8>>,
    #[serde(with = "super::base64_secret")]
    r: Zeroizing<Vec<u8>>,
}

impl KeyFile {
    /// Wraps `master` under `password`.
    ///
    /// # Errors
    /// Fails when the system has no randomness.
    pub fn wrap(
        master: &KeyMaterial,
        password: &[u8],
        cost: Cost,
        author: Author,
    ) -> Result<Self, WrapError> {
        let mut salt = vec![0; SALT_BYTES];
        random_bytes(&mut salt)?;
        let json = MasterJson {
            mac: MacJson {
                k: Zeroizing::new(master.mac_k.to_vec()),
                r: Zeroizing::new(master.mac_r.to_vec()),
            },
            encrypt: Zeroizing::new(master.encrypt.to_vec()),
        };
        let plaintext = Zeroizing::new(serde_json::to_vec(&json).map_err(FormatError::from)?);
        let mut data = Vec::new();
        derive(password, &salt, cost)?.seal(&plaintext, &mut data)?;
        Ok(Self {
            created: author.created,
            username: author.username,
            hostname: author.hostname,
            kdf: "scrypt".to_owned(),
            n: 1 << cost.log_n,
            r: cost.r,
            p: cost.p,
            salt,
            data,
        })
    }

    /// Reads and checks a key file; opens nothing yet.
    ///
    /// # Errors
    /// Fails when the bytes are not the JSON of a key file or a field is out of bounds.
    pub fn parse(content: &[u8]) -> Result<Self, FormatError> {
        let file: Self = serde_json::from_slice(content)?;
        if file.kdf != "scrypt" {
            return Err(FormatError::invalid(format!("unknown key derivation '{}'", file.kdf)));
        }
        if file.salt.len() != SALT_BYTES {
            return Err(FormatError::invalid("the salt is not 64 bytes long"));
        }
        if file.data.len() <= OVERHEAD_BYTES {
            return Err(FormatError::invalid("the sealed key is too short"));
        }
        file.cost()?;
        Ok(file)
    }

    /// The content of the file that holds this key.
    ///
    /// # Errors
    /// Fails when the key cannot be written as JSON.
    pub fn to_bytes(&self) -> Result<Vec<u8>, FormatError> {
        Ok(super::go_json::to_vec(self)?)
    }

    /// Opens the master key with `password`. Takes as long as scrypt was told to take.
    ///
    /// # Errors
    /// Fails with [`WrapError::WrongPassword`] when the password opens nothing, and with a
    /// format error when what it opens is no key.
    pub fn unwrap_master(&self, password: &[u8]) -> Result<KeyMaterial, WrapError> {
        let wrapping = derive(password, &self.salt, self.cost()?)?;
        let mut plaintext = Zeroizing::new(Vec::new());
        wrapping.open(&self.data, &mut plaintext).map_err(|_| WrapError::WrongPassword)?;
        let json: MasterJson = serde_json::from_slice(&plaintext).map_err(FormatError::from)?;
        let bytes = Zeroizing::new([&json.encrypt[..], &json.mac.k[..], &json.mac.r[..]].concat());
        let lengths = (json.encrypt.len(), json.mac.k.len(), json.mac.r.len());
        let material = <&[u8; KEY_BYTES]>::try_from(bytes.as_slice())
            .ok()
            .filter(|_| lengths == (32, 16, 16))
            .map(KeyMaterial::from_bytes)
            .filter(KeyMaterial::is_plausible);
        material
            .ok_or_else(|| FormatError::invalid("the key inside has parts of a wrong size").into())
    }

    fn cost(&self) -> Result<Cost, FormatError> {
        Cost::from_file(self.n, self.r, self.p)
    }
}

fn unknown_time() -> Timestamp {
    Timestamp::UNIX_EPOCH
}

fn derive(password: &[u8], salt: &[u8], cost: Cost) -> Result<Key, FormatError> {
    let params = scrypt::Params::new(cost.log_n, cost.r, cost.p)
        .map_err(|error| FormatError::invalid(error.to_string()))?;
    let mut bytes = Zeroizing::new([0; KEY_BYTES]);
    scrypt::derive(password, salt, &params, bytes.as_mut_slice())
        .map_err(|error| FormatError::invalid(error.to_string()))?;
    Ok(Key::new(KeyMaterial::from_bytes(&bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key_file(password: &[u8]) -> (KeyMaterial, KeyFile) {
        let master = KeyMaterial::random().unwrap();
        let author = Author {
            username: "ana".to_owned(),
            hostname: "vault".to_owned(),
            created: Timestamp::UNIX_EPOCH,
        };
        let file = KeyFile::wrap(&master, password, Cost::FOR_TESTS, author).unwrap();
        (master, file)
    }

    #[test]
    fn the_right_password_opens_and_others_do_not() {
        let (master, file) = key_file("geheim".as_bytes());
        let file = KeyFile::parse(&file.to_bytes().unwrap()).unwrap();
        let opened = file.unwrap_master("geheim".as_bytes()).unwrap();
        assert_eq!(opened.encrypt, master.encrypt);
        assert_eq!((opened.mac_k, opened.mac_r), (master.mac_k, master.mac_r));
        assert!(matches!(file.unwrap_master(b"Geheim"), Err(WrapError::WrongPassword)));
    }

    #[test]
    fn costs_that_would_exhaust_the_machine_are_refused() {
        let check = |n, r, p, accepted| {
            assert_eq!(Cost::from_file(n, r, p).is_ok(), accepted, "N={n} r={r} p={p}");
        };
        check(1 << 15, 8, 3, true);
        check(1 << 17, 8, 1, true);
        check(0, 8, 1, false);
        check(1, 8, 1, false);
        check(1000, 8, 1, false);
        check(1 << 15, 0, 1, false);
        check(1 << 15, 8, 0, false);
        check(1 << 40, 8, 1, false);
        check(u64::MAX, u32::MAX, u32::MAX, false);
        check(1 << 63, 8, 1, false);
        check(2, 8, u32::MAX, false);
        check(2, 1, 25_000_000, false);
    }

    #[test]
    fn damaged_key_files_are_refused() {
        let bytes = key_file(b"x").1.to_bytes().unwrap();
        for length in 0..bytes.len() {
            assert!(KeyFile::parse(&bytes[..length]).is_err());
        }
        let text = String::from_utf8(bytes).unwrap();
        for (from, to) in
            [("scrypt", "argon2"), ("\"salt\":\"", "\"salt\":\"AAAA"), ("\"N\":16", "\"N\":17")]
        {
            assert!(text.contains(from));
            assert!(KeyFile::parse(text.replace(from, to).as_bytes()).is_err(), "{to}");
        }
    }
}
