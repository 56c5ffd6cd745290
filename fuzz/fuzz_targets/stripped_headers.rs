//! See [`p2pid_fuzz::net::stripped_headers`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| p2pid_fuzz::net::stripped_headers(data));
