//! Client assertions: `private_key_jwt` (RFC 7523 §2.2 and §3, with the audience of its revision and of FAPI 2.0: our issuer and nothing else).

use std::time::Duration;

use serde_json::Value;

use super::json::Members;
use super::jws::{AHEAD, BadSignature, Unverified};
use super::key::KeySet;
use super::signing_key::SigningKey;
use crate::clock::Timestamp;
use crate::secret::{Digest, SecretString};

/// `client_assertion_type`
pub const TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// The longest that an assertion may live: its `jti` is remembered for as long.
pub const LONGEST: Duration = Duration::from_secs(60 * 60);

/// The longest `jti`.
const LONGEST_JTI: usize = 256;

/// An assertion that is its client's. Whether it was used before is the store's to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asserted {
    /// Names it, among all of all clients.
    pub once: Digest,
    /// When it was made, if it says so.
    pub issued_at: Option<Timestamp>,
    /// From when on it is refused anyway.
    pub expires_at: Timestamp,
}

impl Asserted {
    /// Whether it may be older than what is remembered of used ones, which goes back to `begun_at`: a restored database does not know what was
    /// used after its copy was made. The client's clock may be as far ahead as is borne with. Gives how much later one has to be made.
    pub fn too_early_by(&self, begun_at: Timestamp) -> Option<Duration> {
        let known_from = begun_at.plus(Duration::from_secs(AHEAD.unsigned_abs()));
        let (made, first) = match self.issued_at {
            Some(issued_at) => (issued_at, known_from),
            // No assertion lives longer.
            None => (self.expires_at, known_from.plus(LONGEST)),
        };
        // Its times are whole seconds.
        (made <= first).then(|| first.since(made) + Duration::from_secs(1))
    }
}

/// Why an assertion is not believed; all are `invalid_client`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is not signed by a registered key.
    #[error("client_assertion: {0}")]
    Signature(#[from] BadSignature),
    /// `iss` or `sub` is not the client.
    #[error("client_assertion: iss and sub are not both the client_id")]
    Client,
    /// `aud` is another, or a list. An assertion for the token endpoint could have been made for another server (RFC 9700 §4.9).
    #[error("client_assertion: aud is not this instance's issuer as one string")]
    Audience,
    /// `exp` is missing, past, or further ahead than anybody needs.
    #[error("client_assertion: exp is missing, over, or more than an hour ahead")]
    Expiry,
    /// `nbf` or `iat` lies ahead.
    #[error("client_assertion: nbf or iat lies ahead of this instance's clock")]
    NotYet,
    /// There is no `jti`, or an endless one.
    #[error("client_assertion: jti is not a text of 1 to 256 bytes")]
    Identifier,
}

/// An assertion as it came: it names a client, and nobody has vouched for it yet.
#[derive(Debug)]
pub struct Assertion<'a> {
    client_id: String,
    signed: Unverified<'a>,
}

impl<'a> Assertion<'a> {
    /// Reads an assertion.
    ///
    /// # Errors
    /// It is no signed text of a kind that is believed, or names nobody.
    pub fn read(text: &'a str) -> Result<Self, Refusal> {
        let signed = Unverified::read(text)?;
        let client_id = signed.unverified_claim("sub").ok_or(Refusal::Client)?.to_owned();
        Ok(Self { client_id, signed })
    }

    /// Who it says that it is.
    pub fn client_id(&self) -> &str {
        &self.client_id
    }

    /// The same, when one of `keys` signed it.
    ///
    /// # Errors
    /// None of them did.
    pub fn signed_by(&self, keys: &KeySet) -> Result<Signed<'_>, Refusal> {
        let claims = self.signed.verify(keys.candidates(self.signed.algorithm, self.signed.key_id()))?;
        Ok(Signed { assertion: self, claims })
    }
}

/// An assertion whose signature was found to be by a key. What it claims is still to be judged.
#[derive(Debug)]
pub struct Signed<'a> {
    assertion: &'a Assertion<'a>,
    claims: &'a Members,
}

impl Signed<'_> {
    /// Judges it at the server `issuer`, when the key is one of the client that it names.
    ///
    /// # Errors
    /// Why it is not believed.
    pub fn judge(&self, issuer: &str, now: Timestamp) -> Result<Asserted, Refusal> {
        let Self { assertion: Assertion { client_id, signed }, claims } = self;
        signed.check_type(&["jwt", "client-authentication+jwt"], false)?;
        // `sub` is the client that it names.
        if claims.text("iss") != Some(client_id) {
            return Err(Refusal::Client);
        }
        if claims.text("aud") != Some(issuer) {
            return Err(Refusal::Audience);
        }
        let now_seconds = now.seconds();
        let end = claims.seconds("exp").filter(|end| {
            let most = i64::try_from(LONGEST.as_secs()).unwrap_or(i64::MAX).saturating_add(AHEAD);
            *end > now_seconds && *end <= now_seconds.saturating_add(most)
        });
        let end = end.ok_or(Refusal::Expiry)?;
        let lies_ahead = |name: &str| match claims.0.get(name) {
            None | Some(Value::Null) => false,
            Some(_) => claims.seconds(name).is_none_or(|from| from > now_seconds.saturating_add(AHEAD)),
        };
        if lies_ahead("nbf") || lies_ahead("iat") {
            return Err(Refusal::NotYet);
        }
        let jti = claims.text("jti").filter(|jti| (1..=LONGEST_JTI).contains(&jti.len())).ok_or(Refusal::Identifier)?;
        let once = Digest::of(&format!("client assertion\n{client_id}\n{jti}"));
        let at = |seconds: i64| Timestamp::from_millis(seconds.saturating_mul(1000));
        Ok(Asserted { once, issued_at: claims.seconds("iat").map(at), expires_at: at(end) })
    }
}

/// How long an assertion of ours lives: as long as its one request is under way.
const OURS: i64 = 60;

/// An assertion of our own: `client_id` is us at the server `audience`, whose clock says `at`. `identifier` is its `jti`, never used before.
pub fn made(key: &SigningKey, client_id: &str, audience: &str, at: Timestamp, identifier: &str) -> SecretString {
    let public = key.public();
    let header = serde_json::json!({ "alg": public.algorithm().as_str(), "typ": "JWT", "kid": public.key_id });
    let at = at.seconds();
    let claims = serde_json::json!({
        "iss": client_id, "sub": client_id, "aud": audience, "iat": at, "exp": at.saturating_add(OURS), "jti": identifier,
    });
    SecretString::from(key.sign(&header.to_string(), &claims.to_string()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::oauth::signing_key::SigningKey;

    const NOW: i64 = 1_000_000;
    const ISSUER: &str = "https://two.example:7443";

    fn judged(header: &str, changes: &[(&str, Value)]) -> Result<Asserted, Refusal> {
        let key = SigningKey::generate();
        let keys = KeySet::read(json!({ "keys": [key.public().to_jwk()] }).to_string().as_bytes()).expect("a set");
        let mut claims = json!({ "iss": "one", "sub": "one", "aud": ISSUER, "exp": NOW + 60, "jti": "a" });
        for (name, value) in changes {
            claims[*name] = value.clone();
        }
        let text = key.sign(header, &claims.to_string());
        let assertion = Assertion::read(&text)?;
        assert!(assertion.signed_by(&keys).is_ok() || header.contains("another"));
        assert!(!format!("{assertion:?}").contains(text.rsplit_once('.').expect("three parts").0), "whoever holds it could use it");
        assertion.signed_by(&keys)?.judge(ISSUER, Timestamp::from_millis(NOW * 1000))
    }

    const HEADER: &str = r#"{"alg":"ES256"}"#;

    #[test]
    fn t13_an_assertion_of_the_clients_own_key_for_us_is_believed() {
        let asserted = judged(HEADER, &[]).expect("believed");
        let at = |seconds: i64| Timestamp::from_millis(seconds * 1000);
        assert_eq!((asserted.issued_at, asserted.expires_at), (None, at(NOW + 60)));
        let asserted_now = Asserted { issued_at: Some(at(NOW)), ..asserted };
        for header in [r#"{"alg":"ES256","typ":"JWT"}"#, r#"{"alg":"ES256","typ":"client-authentication+jwt"}"#] {
            assert_eq!(judged(header, &[("iat", json!(NOW)), ("nbf", json!(NOW + AHEAD))]), Ok(asserted_now));
        }
        assert_ne!(judged(HEADER, &[("jti", json!("b"))]).expect("believed").once, asserted.once);
        assert!(judged(HEADER, &[("exp", json!(NOW as f64 + 0.5 + 60.0))]).is_ok());
    }

    #[test]
    fn t13_what_may_be_from_before_a_restore_is_told_by_its_time() {
        let at = |seconds: i64| Timestamp::from_millis(seconds * 1000);
        let made = |issued_at: Option<i64>| Asserted { once: Digest::of("a"), issued_at: issued_at.map(at), expires_at: at(NOW + 60) };
        let seconds = |seconds: i64| Some(Duration::from_secs(seconds.unsigned_abs()));
        assert_eq!(made(Some(NOW - 1)).too_early_by(at(NOW)), seconds(AHEAD + 2));
        assert_eq!(made(Some(NOW + AHEAD)).too_early_by(at(NOW)), seconds(1), "by a clock that is ahead");
        assert_eq!(made(Some(NOW + AHEAD + 1)).too_early_by(at(NOW)), None);
        assert_eq!(made(None).too_early_by(at(NOW)), seconds(3_600 + AHEAD - 60 + 1));
        assert_eq!(made(None).too_early_by(at(NOW + 60 - 3_600 - AHEAD)), seconds(1));
        assert_eq!(made(None).too_early_by(at(NOW + 60 - 3_600 - AHEAD - 1)), None, "no assertion lives so long");
    }

    #[test]
    fn t13_k2_k3_one_thing_wrong_is_one_refusal() {
        for (name, value, expected) in [
            ("iss", json!("other"), Refusal::Client),
            ("sub", json!("other"), Refusal::Client),
            ("sub", json!(null), Refusal::Client),
            ("iss", json!(null), Refusal::Client),
            ("aud", json!(format!("{ISSUER}/oauth/token")), Refusal::Audience),
            ("aud", json!(format!("{ISSUER}/")), Refusal::Audience),
            ("aud", json!([ISSUER]), Refusal::Audience),
            ("aud", json!([ISSUER, "https://other.example"]), Refusal::Audience),
            ("aud", json!(null), Refusal::Audience),
            ("exp", json!(NOW), Refusal::Expiry),
            ("exp", json!(NOW - 60), Refusal::Expiry),
            ("exp", json!(null), Refusal::Expiry),
            ("exp", json!((NOW + 60).to_string()), Refusal::Expiry),
            ("exp", json!(NOW + 3_600 + AHEAD + 1), Refusal::Expiry),
            ("exp", json!(i64::MAX), Refusal::Expiry),
            ("exp", json!(1e300), Refusal::Expiry),
            ("nbf", json!(NOW + AHEAD + 1), Refusal::NotYet),
            ("iat", json!(NOW + 61), Refusal::NotYet),
            ("iat", json!("now"), Refusal::NotYet),
            ("jti", json!(""), Refusal::Identifier),
            ("jti", json!(7), Refusal::Identifier),
            ("jti", json!("x".repeat(257)), Refusal::Identifier),
        ] {
            assert_eq!(judged(HEADER, &[(name, value.clone())]), Err(expected), "{name} {value}");
        }
        for header in [r#"{"alg":"ES256","typ":"dpop+jwt"}"#, r#"{"alg":"ES256","typ":7}"#] {
            assert_eq!(judged(header, &[]), Err(Refusal::Signature(BadSignature::Type)), "{header}");
        }
        assert_eq!(judged(r#"{"alg":"ES256","kid":"another"}"#, &[]), Err(Refusal::Signature(BadSignature::Signature)));
    }
}
