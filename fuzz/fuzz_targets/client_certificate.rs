//! See [`p2pid_fuzz::net::client_certificate`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| p2pid_fuzz::net::client_certificate(data));
