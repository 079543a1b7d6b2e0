//! Hands libFuzzer's bytes to `targets::go_quote`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| muster_fuzz::targets::go_quote(data));
