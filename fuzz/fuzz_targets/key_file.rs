//! Hands libFuzzer's bytes to `targets::key_file`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| muster_fuzz::targets::key_file(data));
