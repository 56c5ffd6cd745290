//! See [`p2pid_fuzz::doors::query_token`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| p2pid_fuzz::doors::query_token(data));
