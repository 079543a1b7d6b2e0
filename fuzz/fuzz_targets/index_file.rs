//! Hands libFuzzer's bytes to `targets::index_file`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| muster_fuzz::targets::index_file(data));
