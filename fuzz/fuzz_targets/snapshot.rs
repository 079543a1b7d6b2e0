//! Hands libFuzzer's bytes to `targets::snapshot`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| muster_fuzz::targets::snapshot(data));
