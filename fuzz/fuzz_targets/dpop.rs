//! See [`p2pid_fuzz::oauth::dpop`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| p2pid_fuzz::oauth::dpop(data));
