//! The last line of defence against secrets in logs: what has the form of a secret that we issue never leaves the process.
//!
//! No code is meant to log a secret. This catches the mistake: each line is searched for our typed prefixes (`p2pa_…` and its kin, see
//! [`crate::oauth::token`]) and everything that follows one is replaced by the secret's fingerprint.

use std::io::{self, Write};

use crate::secret::Fingerprint;

const START: &[u8] = b"p2p";
const PREFIX_LENGTH: usize = 5;
/// Shorter than any secret of ours, so that one that was cut is caught too; longer than a word that looks like a prefix by chance.
const SHORTEST: usize = 16;

/// Passes lines on to `W` with our secrets taken out.
pub(super) struct Redacting<W>(pub(super) W);

impl<W: Write> Write for Redacting<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // The log layer hands over whole lines, so a secret is never split between two calls.
        self.0.write_all(&redacted(line))?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// `text` with everything that looks like a secret of ours replaced.
fn redacted(text: &[u8]) -> Vec<u8> {
    let mut clean = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.windows(START.len()).position(|window| window == START) {
        let (before, from_here) = rest.split_at(start);
        clean.extend_from_slice(before);
        let length = secret_length(from_here);
        if length == 0 {
            clean.extend_from_slice(START);
            rest = &from_here[START.len()..];
        } else {
            let fingerprint = Fingerprint::of(&String::from_utf8_lossy(&from_here[..length]));
            clean.extend_from_slice(format!("[secret {fingerprint}]").as_bytes());
            rest = &from_here[length..];
        }
    }
    clean.extend_from_slice(rest);
    clean
}

/// How many bytes of a secret `text` starts with; 0 when it starts with none.
fn secret_length(text: &[u8]) -> usize {
    let looks_typed = text.len() > PREFIX_LENGTH && text[START.len()].is_ascii_lowercase() && text[PREFIX_LENGTH - 1] == b'_';
    if !looks_typed {
        return 0;
    }
    let length = text.iter().take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')).count();
    if length >= SHORTEST { length } else { 0 }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;
    use crate::oauth::token::{self, Kind};
    use crate::system::SystemRandom;

    #[test]
    fn k7_secrets_that_we_issue_do_not_pass() {
        for kind in
            [Kind::Access, Kind::Refresh, Kind::Code, Kind::Ticket, Kind::ClientSecret, Kind::ApiKey, Kind::CallerKey, Kind::Session]
        {
            let secret = token::mint(kind, &SystemRandom);
            let secret = secret.expose_secret();
            for line in
                [secret.to_owned(), format!("GET /link/{secret}?x=1 p2pi"), format!("{secret}{secret}"), format!("cut {}", &secret[..30])]
            {
                let clean = String::from_utf8(redacted(line.as_bytes())).expect("still text");
                assert!(!clean.contains(&secret[8..20]), "{clean}");
                assert!(clean.contains("[secret "), "{clean}");
            }
        }
    }

    #[test]
    fn other_text_passes_unchanged() {
        for line in ["", "p2p", "p2pid_link_state", "scope p2pi to p2pi_path", "p2pid::doors", "ä p2"] {
            assert_eq!(redacted(line.as_bytes()), line.as_bytes());
        }
    }
}
