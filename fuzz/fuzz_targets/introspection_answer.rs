//! See [`p2pid_fuzz::outbound::introspection_answer`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| p2pid_fuzz::outbound::introspection_answer(data));
