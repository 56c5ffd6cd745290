//! See [`p2pid_fuzz::outbound::server_metadata`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| p2pid_fuzz::outbound::server_metadata(data));
