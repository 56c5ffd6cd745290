//! See [`p2pid_fuzz::shell::admin_document`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| p2pid_fuzz::shell::admin_document(data));
