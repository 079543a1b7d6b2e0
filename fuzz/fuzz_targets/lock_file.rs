//! Hands libFuzzer's bytes to `targets::lock_file`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| muster_fuzz::targets::lock_file(data));
