//! See [`p2pid_fuzz::doors::audit_query`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| p2pid_fuzz::doors::audit_query(data));
