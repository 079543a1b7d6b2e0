//! Hands libFuzzer's bytes to `targets::pack_header`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| muster_fuzz::targets::pack_header(data));
