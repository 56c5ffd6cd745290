//! See [`p2pid_fuzz::doors::admin_credentials`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| p2pid_fuzz::doors::admin_credentials(data));
