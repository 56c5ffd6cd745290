//! See [`p2pid_fuzz::outbound::token_refusal`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| p2pid_fuzz::outbound::token_refusal(data));
