//! What the fuzzer starts from, and what it found: every file in `fuzz/seeds/` that is a server's
//! answer goes through its target in every run of the tests, also where no fuzzer can be built.
//!
//! The seeds are answers of OpenSSH's server and of moto, and some by hand from the documents.

use std::{fs, panic::catch_unwind, path::Path};

#[path = "../../../fuzz/src/answers.rs"]
#[expect(unreachable_pub, reason = "a crate of its own uses it too")]
mod answers;

#[test]
fn every_seed_passes_its_target() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds");
    for (name, target) in answers::TARGETS {
        let mut count = 0;
        for entry in fs::read_dir(folder.join(name)).unwrap() {
            let path = entry.unwrap().path();
            let bytes = fs::read(&path).unwrap();
            assert!(catch_unwind(|| target(&bytes)).is_ok(), "{} broke it", path.display());
            count += 1;
        }
        assert!(count > 0, "{name} has no seeds");
    }
}
