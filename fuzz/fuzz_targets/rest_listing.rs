//! Hands libFuzzer's bytes to `answers::rest_listing`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| muster_fuzz::answers::rest_listing(data));
