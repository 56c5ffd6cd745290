//! See [`p2pid_fuzz::net::client_cert_header`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| p2pid_fuzz::net::client_cert_header(data));
