//! scrypt, with two of its lanes side by side in a thread.
//!
//! scrypt's p lanes are independent, and each is a chain in which every step waits for the one before.
//! So a processor with vectors does two lanes in the time of one ([`lanes`]). All three lanes of a key of
//! ours are under way at once: on two cores one thread has two of them, the other has one.
//!
//! The `scrypt` crate is the safe twin that this is tested against, and does all of it elsewhere. What
//! is derived, and what it costs who guesses passwords, is the same.
//!
//! # Source
//! RFC 7914, *The scrypt Password-Based Key Derivation Function*.

#[cfg(target_arch = "x86_64")]
mod lanes;

/// N, r and p; and the error of a derivation into nothing.
pub(crate) use ::scrypt::{Params, errors::InvalidOutputLen as InvalidLength};

/// Fills `output` from a password; takes as long as `params` want, and 128 × N × r bytes of memory for
/// each lane that is under way.
///
/// # Errors
/// Fails when `output` is empty.
pub(crate) fn derive(
    password: &[u8],
    salt: &[u8],
    params: &Params,
    output: &mut [u8],
) -> Result<(), InvalidLength> {
    #[cfg(target_arch = "x86_64")]
    if let Some(mix) = lanes::Mix::detect()
        && !output.is_empty()
    {
        wide::derive(password, salt, params, mix, output);
        return Ok(());
    }
    ::scrypt::scrypt(password, salt, params, output)
}

#[cfg(target_arch = "x86_64")]
mod wide {
    use std::{
        sync::{Mutex, PoisonError},
        thread,
    };

    use pbkdf2::pbkdf2_hmac;
    use sha2::Sha256;
    use zeroize::Zeroizing;

    use super::{
        Params,
        lanes::{Lane, Mix},
    };
    use crate::environment::cores;

    /// As many lanes are under way as fit into this, in bytes, and one at least: three of a key of ours.
    /// The goal for a command's memory is 128 MiB.
    const LANES_BYTES: usize = 96 << 20;

    pub(super) fn derive(
        password: &[u8],
        salt: &[u8],
        params: &Params,
        mix: Mix,
        output: &mut [u8],
    ) {
        let lane_bytes = 128 * params.r() as usize;
        let mut lanes = Zeroizing::new(vec![0; lane_bytes * params.p() as usize]);
        pbkdf2_hmac::<Sha256>(password, salt, 1, &mut lanes);
        let table_bytes = lane_bytes << params.log_n();
        let widths = widths(params.p() as usize, table_bytes, cores());
        let to_do = Mutex::new(lanes.chunks_exact_mut(lane_bytes));
        let work = |width: usize| {
            let mut tables: Vec<Lane> = (0..width).map(|_| Lane::new(table_bytes)).collect();
            loop {
                // The lock is held for this statement only.
                let next: Vec<&mut [u8]> = to_do
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .by_ref()
                    .take(width)
                    .collect();
                let mut next = next.into_iter().zip(&mut tables);
                match (next.next(), next.next()) {
                    (Some(first), Some(second)) => mix.two([first, second]),
                    (Some(only), None) => mix.one(only),
                    (None, _) => return,
                }
            }
        };
        thread::scope(|scope| {
            let (mine, others) = widths.split_first().unwrap_or((&1, &[]));
            for &width in others {
                // Without another thread this one does it all.
                drop(thread::Builder::new().spawn_scoped(scope, move || work(width)));
            }
            work(*mine);
        });
        pbkdf2_hmac::<Sha256>(password, &lanes, 1, output);
    }

    /// How many lanes each thread has under way at once.
    fn widths(lanes: usize, table_bytes: usize, cores: usize) -> Vec<usize> {
        let at_once = (LANES_BYTES / table_bytes.max(1)).max(1).min(lanes);
        let threads = at_once.min(cores).max(1);
        let pairs = at_once.saturating_sub(threads).min(threads);
        (0..threads).map(|thread| if thread < pairs { 2 } else { 1 }).collect()
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn as_many_lanes_are_under_way_as_memory_allows() {
            let check = |lanes, table_mib: usize, cores, expected: &[usize]| {
                assert_eq!(widths(lanes, table_mib << 20, cores), expected, "{lanes} {cores}");
            };
            check(3, 32, 2, &[2, 1]);
            check(3, 32, 1, &[2]);
            check(3, 32, 8, &[1, 1, 1]);
            check(1, 32, 2, &[1]);
            check(7, 32, 2, &[2, 1]);
            check(7, 16, 2, &[2, 2]);
            check(4, 512, 2, &[1]);
            check(10, 32, 16, &[1, 1, 1]);
            check(4, 0, 2, &[2, 2]);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn derived(password: &[u8], salt: &[u8], (log_n, r, p): (u8, u32, u32)) -> [u8; 64] {
        let mut output = [0; 64];
        derive(password, salt, &Params::new(log_n, r, p).unwrap(), &mut output).unwrap();
        output
    }

    /// RFC 7914, 12.
    #[test]
    fn the_rfc_s_vectors_hold() {
        let check = |password: &str, salt: &str, cost, expected: &str| {
            let output = derived(password.as_bytes(), salt.as_bytes(), cost);
            let hex: String = output.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hex, expected, "{password}");
        };
        check(
            "",
            "",
            (4, 1, 1),
            "77d6576238657b203b19ca42c18a0497f16b4844e3074ae8dfdffa3fede21442\
             fcd0069ded0948f8326a753a0fc81f17e8d3e0fb2e0d3628cf35e20c38d18906",
        );
        check(
            "password",
            "NaCl",
            (10, 8, 16),
            "fdbabe1c9d3472007856e7190d01e9fe7c6ad7cbc8237830e77376634b373162\
             2eaf30d92e22a3886ff109279d9830dac727afb94a83ee6d8360cbdfa2cc0640",
        );
        check(
            "pleaseletmein",
            "SodiumChloride",
            (14, 8, 1),
            "7023bdcb3afd7348461c06cd81fd38ebfda8fbba904f8e3ea9b543f6545da1f2\
             d5432955613f0fcf62d49705242a9af9e61e85dc0d651e40dfcf017b45575887",
        );
    }

    proptest! {
        #[test]
        fn the_crate_derives_the_same(
            password in proptest::collection::vec(any::<u8>(), 0..20),
            salt in proptest::collection::vec(any::<u8>(), 0..70),
            log_n in 1_u8..9,
            r in 1_u32..10,
            p in 1_u32..8,
        ) {
            let params = Params::new(log_n, r, p).unwrap();
            let mut expected = [0; 64];
            ::scrypt::scrypt(&password, &salt, &params, &mut expected).unwrap();
            prop_assert_eq!(derived(&password, &salt, (log_n, r, p)), expected);
            #[cfg(target_arch = "x86_64")]
            for mix in lanes::Mix::detect_all() {
                let mut output = [0; 64];
                wide::derive(&password, &salt, &params, mix, &mut output);
                prop_assert_eq!(output, expected, "{:?}", mix);
            }
        }
    }
}
