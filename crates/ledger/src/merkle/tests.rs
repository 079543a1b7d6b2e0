//! The reference vectors of RFC 6962, and the laws of proofs for any tree.

use std::convert::Infallible;

use proptest::prelude::*;

use super::*;

struct Leaves(Vec<Hash>);

impl Subtrees for Leaves {
    type Error = Infallible;

    fn subtree(&self, level: u32, position: u64) -> Result<Hash, Infallible> {
        let (start, count) = (position << level, 1 << level);
        let start = usize::try_from(start).unwrap();
        let mut frontier = Frontier::default();
        self.0[start..start + count].iter().for_each(|leaf| frontier.push(*leaf));
        Ok(frontier.root())
    }
}

fn hash(hex: &str) -> Hash {
    Hash::from_hex(hex).unwrap()
}

/// The eight leaves of the certificate-transparency reference tests.
const LEAVES: [&[u8]; 8] = [
    b"",
    b"\x00",
    b"\x10",
    b"\x20\x21",
    b"\x30\x31",
    b"\x40\x41\x42\x43",
    b"\x50\x51\x52\x53\x54\x55\x56\x57",
    b"\x60\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f",
];

const ROOTS: [&str; 9] = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
];

fn reference() -> Leaves {
    Leaves(LEAVES.iter().map(|leaf| leaf_hash(leaf)).collect())
}

#[test]
fn roots_are_those_of_the_reference() {
    let mut frontier = Frontier::default();
    for (size, expected) in ROOTS.iter().enumerate() {
        assert_eq!(frontier.root(), hash(expected));
        assert_eq!(root(&reference(), size as u64), Ok(hash(expected)));
        LEAVES.get(size).into_iter().for_each(|leaf| frontier.push(leaf_hash(leaf)));
    }
}

#[test]
fn inclusion_proofs_are_those_of_the_reference() {
    let check = |index: u64, size: u64, expected: &[&str]| {
        let expected: Vec<Hash> = expected.iter().map(|hex| hash(hex)).collect();
        assert_eq!(inclusion(&reference(), index, size), Ok(expected), "{index} of {size}");
    };
    check(0, 1, &[]);
    check(
        0,
        8,
        &[
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ],
    );
    check(
        5,
        8,
        &[
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ],
    );
    check(2, 3, &["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"]);
}

#[test]
fn consistency_proofs_are_those_of_the_reference() {
    let check = |old: u64, new: u64, expected: &[&str]| {
        let expected: Vec<Hash> = expected.iter().map(|hex| hash(hex)).collect();
        assert_eq!(consistency(&reference(), old, new), Ok(expected), "{old} to {new}");
    };
    check(1, 1, &[]);
    check(
        1,
        8,
        &[
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ],
    );
    check(
        6,
        8,
        &[
            "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ],
    );
    check(
        2,
        5,
        &[
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        ],
    );
}

/// All that can be changed in a proof by one bit, one hash more or one less.
fn mutations(proof: &[Hash], bit: usize) -> Vec<Vec<Hash>> {
    let mut mutations = Vec::new();
    for i in 0..proof.len() {
        let mut changed = proof.to_vec();
        changed[i].0[bit / 8 % 32] ^= 1 << (bit % 8);
        mutations.push(changed);
        let mut shorter = proof.to_vec();
        shorter.remove(i);
        mutations.push(shorter);
    }
    let mut longer = proof.to_vec();
    longer.push(empty_root());
    mutations.push(longer);
    mutations
}

fn tree(size: u64) -> Leaves {
    Leaves((0..size).map(|index| leaf_hash(&index.to_be_bytes())).collect())
}

#[test]
fn every_proof_of_small_trees_verifies_and_only_there() {
    let leaves = tree(34);
    for size in 1..=34 {
        let top = root(&leaves, size).unwrap();
        for index in 0..size {
            let proof = inclusion(&leaves, index, size).unwrap();
            for at in 0..size {
                let leaf = &leaves.0[usize::try_from(index).unwrap()];
                assert_eq!(verify_inclusion(leaf, at, size, &proof, &top), at == index);
            }
        }
        for old in 0..=size {
            let (proof, old_root) = (consistency(&leaves, old, size).unwrap(), root(&leaves, old));
            let old_root = old_root.unwrap();
            assert!(verify_consistency((old, &old_root), (size, &top), &proof), "{old} {size}");
        }
    }
}

proptest! {
    #[test]
    fn a_changed_proof_is_refused(size in 1_u64..300, seed in any::<u64>(), bit in 0_usize..256) {
        let (leaves, index, old) = (tree(size), seed % size, seed % size + 1);
        let top = root(&leaves, size).unwrap();
        let leaf = leaves.0[usize::try_from(index).unwrap()];
        let proof = inclusion(&leaves, index, size).unwrap();
        prop_assert!(verify_inclusion(&leaf, index, size, &proof, &top));
        for changed in mutations(&proof, bit) {
            prop_assert!(!verify_inclusion(&leaf, index, size, &changed, &top));
        }
        let (proof, old_root) = (consistency(&leaves, old, size).unwrap(), root(&leaves, old).unwrap());
        prop_assert!(verify_consistency((old, &old_root), (size, &top), &proof));
        for changed in mutations(&proof, bit) {
            prop_assert!(!verify_consistency((old, &old_root), (size, &top), &changed));
        }
        let mut other = old_root;
        other.0[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(!verify_consistency((old, &other), (size, &top), &proof));
        prop_assert!(!verify_inclusion(&other, index, size, &inclusion(&leaves, index, size).unwrap(), &top));
    }

    #[test]
    fn a_tree_of_complete_subtrees_has_the_same_root(start in 0_u64..200, count in 0_u64..200) {
        let (leaves, end) = (tree(start + count), start + count);
        let mut frontier = Frontier::default();
        leaves.0[..usize::try_from(start).unwrap()].iter().for_each(|leaf| frontier.push(*leaf));
        for (from, level) in complete_subtrees(start, end) {
            prop_assert_eq!(from, frontier.size());
            prop_assert!(frontier.push_subtree(level, leaves.subtree(level, from >> level).unwrap()));
        }
        prop_assert_eq!(frontier.size(), end);
        prop_assert_eq!(frontier.root(), root(&leaves, end).unwrap());
    }
}
