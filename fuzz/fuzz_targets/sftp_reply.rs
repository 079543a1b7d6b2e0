//! Hands libFuzzer's bytes to `answers::sftp_reply`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| muster_fuzz::answers::sftp_reply(data));
