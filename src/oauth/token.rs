//! The opaque secrets that we issue: typed by prefix, with a checksum.
//!
//! `p2pa_` + 32 characters (192 random bits, base64url) + 6 characters (CRC-32 of what stands before them, base64url). The prefix lets
//! secret scanners and people tell what leaked; the checksum lets garbage be refused without a look-up. All characters are
//! `[A-Za-z0-9_-]`, so the text is the same raw and percent-encoded, in a header, a form and a path.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::random::{self, Random};
use crate::secret::{Digest, SecretString};

/// What a secret is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A bearer access token, presented at the gateway.
    Access,
    /// A refresh token, presented at the token endpoint.
    Refresh,
    /// An authorization code.
    Code,
    /// The ticket in a request URL.
    Ticket,
    /// An IB app's client secret.
    ClientSecret,
    /// A person's key for the admin API.
    ApiKey,
    /// A local application's key for the relay.
    CallerKey,
    /// A browser's session.
    Session,
    /// The `state` of a handshake, and what ties a browser to it.
    State,
    /// The reference to a pushed authorization request.
    PushedRequest,
}

impl Kind {
    const fn prefix(self) -> &'static str {
        match self {
            Self::Access => "p2pa_",
            Self::Refresh => "p2pr_",
            Self::Code => "p2pc_",
            Self::Ticket => "p2pt_",
            Self::ClientSecret => "p2ps_",
            Self::ApiKey => "p2pk_",
            Self::CallerKey => "p2pl_",
            Self::Session => "p2pb_",
            Self::State => "p2ph_",
            Self::PushedRequest => "p2pu_",
        }
    }
}

const PREFIX_LENGTH: usize = 5;
const BODY_LENGTH: usize = 32;
const CHECKSUM_LENGTH: usize = 6;
const LENGTH: usize = PREFIX_LENGTH + BODY_LENGTH + CHECKSUM_LENGTH;

/// A new secret of `kind`, with 192 random bits.
pub fn mint(kind: Kind, random: &dyn Random) -> SecretString {
    let mut text = String::with_capacity(LENGTH);
    text.push_str(kind.prefix());
    URL_SAFE_NO_PAD.encode_string(random::bytes::<24>(random), &mut text);
    let checksum = crc32fast::hash(text.as_bytes()).to_be_bytes();
    URL_SAFE_NO_PAD.encode_string(checksum, &mut text);
    SecretString::from(text)
}

/// The digest of `text` when it has the form of a `kind` and its checksum holds; what fails here was never ours.
pub fn digest_if(kind: Kind, text: &str) -> Option<Digest> {
    if text.len() != LENGTH || !text.starts_with(kind.prefix()) {
        return None;
    }
    let (body, checksum) = text.split_at_checked(PREFIX_LENGTH + BODY_LENGTH)?;
    let mut decoded = [0; 5];
    let length = URL_SAFE_NO_PAD.decode_slice(checksum, &mut decoded).ok()?;
    (decoded[..length] == crc32fast::hash(body.as_bytes()).to_be_bytes()).then(|| Digest::of(text))
}

/// Whether `text` begins like a secret of ours of any kind, whole or not.
pub fn looks_like_ours(text: &str) -> bool {
    // All begin alike but for the letter of their kind.
    matches!(text.as_bytes(), [b'p', b'2', b'p', kind, b'_', ..] if kind.is_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;
    use crate::system::SystemRandom;

    #[test]
    fn k1_what_is_minted_is_recognised_and_only_as_its_kind() {
        let token = mint(Kind::Access, &SystemRandom);
        assert_eq!(token.expose_secret().len(), LENGTH);
        assert!(digest_if(Kind::Access, token.expose_secret()).is_some());
        assert!(digest_if(Kind::Refresh, token.expose_secret()).is_none());
    }

    #[test]
    fn a14_k1_every_kind_has_192_bits_that_chance_alone_decides() {
        let kinds = [
            Kind::Access,
            Kind::Refresh,
            Kind::Code,
            Kind::Ticket,
            Kind::ClientSecret,
            Kind::ApiKey,
            Kind::CallerKey,
            Kind::Session,
            Kind::State,
            Kind::PushedRequest,
        ];
        for kind in kinds {
            assert!(looks_like_ours(kind.prefix()), "{kind:?}");
            let (mut ever, mut always) = ([0_u8; 24], [0xff_u8; 24]);
            for _ in 0..200 {
                let token = mint(kind, &SystemRandom);
                let body = URL_SAFE_NO_PAD.decode(&token.expose_secret()[5..37]).expect("base64url");
                for (place, byte) in body.iter().enumerate() {
                    ever[place] |= byte;
                    always[place] &= byte;
                }
            }
            // A bit that never changes in 200 draws is no chance.
            assert_eq!((ever, always), ([0xff; 24], [0; 24]), "{kind:?}");
        }
    }

    #[test]
    fn k1_one_changed_character_is_garbage() {
        let token = mint(Kind::Access, &SystemRandom).expose_secret().to_owned();
        for position in 0..token.len() {
            let mut changed = token.clone().into_bytes();
            changed[position] = if changed[position] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).expect("ASCII stays ASCII");
            assert!(digest_if(Kind::Access, &changed).is_none(), "position {position}");
        }
        for text in ["", "p2pa_", "p2pa_ä", &token[1..], &format!("{token}A")] {
            assert!(digest_if(Kind::Access, text).is_none());
        }
    }
}
