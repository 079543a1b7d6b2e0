//! Hands libFuzzer's bytes to `answers::s3_versions`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| muster_fuzz::answers::s3_versions(data));
