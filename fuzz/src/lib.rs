//! What the fuzz targets do with their bytes.
//!
//! The targets themselves, in `fuzz_targets/`, only hand bytes over, because the tests of
//! `muster-repository` run the same functions over `fuzz/seeds/` without a fuzzer.

pub mod targets;
