//! See [`p2pid_fuzz::net::certificate_subject`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| p2pid_fuzz::net::certificate_subject(data));
