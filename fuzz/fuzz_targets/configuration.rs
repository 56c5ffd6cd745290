//! See [`p2pid_fuzz::shell::configuration`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| p2pid_fuzz::shell::configuration(data));
