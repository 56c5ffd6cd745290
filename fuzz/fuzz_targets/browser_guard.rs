//! See [`p2pid_fuzz::doors::browser_guard`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| p2pid_fuzz::doors::browser_guard(data));
