//! DPoP proofs (RFC 9449): whoever presents a token shows, for this one request, that it holds the key that the token is bound to.

use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderValue};
use url::Url;

use super::jws::{AHEAD, BadSignature, Unverified};
use super::key::PublicKey;
use super::signing_key::SigningKey;
use super::thumbprint::KeyThumbprint;
use crate::clock::Timestamp;
use crate::secret::{Digest, ExposeSecret, SecretString};

/// The header of a proof.
pub const HEADER: http::HeaderName = http::HeaderName::from_static("dpop");

/// The header that hands out a nonce (RFC 9449 §8).
pub const NONCE_HEADER: http::HeaderName = http::HeaderName::from_static("dpop-nonce");

/// The type of an access token that is bound to a key (RFC 9449 §5).
pub const TOKEN_TYPE: &str = "DPoP";

/// How old a proof may say that it is. A nonce of ours says for certain when it was made; this only tells a clock that is far off.
const OLDEST: i64 = 5 * 60;

/// The longest `jti`.
const LONGEST_JTI: usize = 256;

/// The request that a proof is for.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Its method.
    pub method: &'a str,
    /// The URLs that it may be known under, as we are configured; queries and fragments do not count.
    pub urls: &'a [Url],
    /// The access token that it presents, if any.
    pub token: Option<&'a str>,
}

/// A proof that holds but for its nonce and for having been used before, which the instance knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// The key that it was made with.
    pub key: KeyThumbprint,
    /// `nonce`
    pub nonce: Option<String>,
    /// Names it, among all of all keys.
    pub once: Digest,
}

/// Why a proof is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is more than one.
    #[error("a request has one DPoP header")]
    Several,
    /// It is not signed by the key that it names.
    #[error("the DPoP proof: {0}")]
    Signature(#[from] BadSignature),
    /// It names no public key.
    #[error("the DPoP proof: jwk is not a public key for EdDSA, ES256 or PS256")]
    Key,
    /// It was made for another method.
    #[error("the DPoP proof: htm is not the request's method")]
    Method,
    /// It was made for another URL.
    #[error("the DPoP proof: htu is not the request's URL")]
    Url,
    /// It was made at another time.
    #[error("the DPoP proof: iat is more than five minutes ago, or lies ahead")]
    Time,
    /// It has no `jti`, or an endless one.
    #[error("the DPoP proof: jti is not a text of 1 to 256 bytes")]
    Identifier,
    /// It was made for another access token.
    #[error("the DPoP proof: ath is not the access token's hash")]
    Token,
}

/// The proof that `headers` carry for `request`; none where there is none.
pub fn presented(headers: &HeaderMap, request: &Request<'_>, now: Timestamp) -> Result<Option<Proof>, Refusal> {
    let mut values = headers.get_all(&HEADER).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(_), Some(_)) => Err(Refusal::Several),
        (Some(value), None) => {
            let text = value.to_str().map_err(|_| Refusal::Signature(BadSignature::Form))?;
            judge(text, request, now).map(Some)
        }
    }
}

/// Judges one proof (RFC 9449 §4.3).
fn judge(text: &str, request: &Request<'_>, now: Timestamp) -> Result<Proof, Refusal> {
    let unverified = Unverified::read(text)?;
    unverified.check_type(&["dpop+jwt"], true)?;
    let key = unverified.key().and_then(|key| PublicKey::from_jwk(key).ok()).ok_or(Refusal::Key)?;
    let claims = unverified.verify([&key].into_iter())?;
    if claims.text("htm") != Some(request.method) {
        return Err(Refusal::Method);
    }
    let named = claims.text("htu").and_then(|text| Url::parse(text).ok()).ok_or(Refusal::Url)?;
    if !request.urls.iter().any(|url| is_same(&named, url)) {
        return Err(Refusal::Url);
    }
    let age = claims.seconds("iat").and_then(|made| now.seconds().checked_sub(made)).ok_or(Refusal::Time)?;
    if !(-AHEAD..=OLDEST).contains(&age) {
        return Err(Refusal::Time);
    }
    let jti = claims.text("jti").filter(|jti| (1..=LONGEST_JTI).contains(&jti.len())).ok_or(Refusal::Identifier)?;
    if let Some(token) = request.token
        && claims.text("ath") != Some(token_hash(token).as_str())
    {
        return Err(Refusal::Token);
    }
    let once = Digest::of(&format!("{}\n{jti}", key.thumbprint()));
    Ok(Proof { key: key.thumbprint(), nonce: claims.text("nonce").map(str::to_owned), once })
}

/// Whether `text` can be a nonce: one or more NQCHAR, what is visible but `"` and `\` (RFC 9449 §8.1).
pub fn is_nonce(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\')
}

/// `ath`: base64url of the token's SHA-256.
pub fn token_hash(token: &str) -> String {
    URL_SAFE_NO_PAD.encode(Digest::of(token).as_bytes())
}

/// Whether two URLs are one but for query and fragment, after syntax-based normalisation (RFC 3986 §6.2.2), most of which parsing does:
/// case of scheme and host, default port, dot segments.
fn is_same(one: &Url, other: &Url) -> bool {
    one.scheme() == other.scheme()
        && one.host_str() == other.host_str()
        && one.port_or_known_default() == other.port_or_known_default()
        && one.username().is_empty()
        && one.password().is_none()
        && unescaped(one.path()) == unescaped(other.path())
}

/// A path without escapes that are not needed (RFC 3986 §6.2.2.2), and with upper case in the others.
fn unescaped(path: &str) -> Vec<u8> {
    let mut plain = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let [first, tail @ ..] = rest {
        let escaped = match tail {
            [high, low, ..] if *first == b'%' => std::str::from_utf8(&[*high, *low]).ok().and_then(|hex| u8::from_str_radix(hex, 16).ok()),
            _ => None,
        };
        match escaped {
            Some(byte) if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => plain.push(byte),
            Some(_) => plain.extend([b'%', tail[0].to_ascii_uppercase(), tail[1].to_ascii_uppercase()]),
            None => plain.push(*first),
        }
        rest = if escaped.is_some() { &tail[2..] } else { tail };
    }
    plain
}

/// A key of ours, and what all proofs that are made with it have in common.
pub struct Prover {
    key: Arc<SigningKey>,
    header: String,
    /// `ath`
    token_hash: Option<String>,
}

/// The request that a proof of ours is for, and what its reader goes by.
#[derive(Debug)]
pub struct Occasion<'a> {
    /// `htm`
    pub method: &'a str,
    /// `htu`, without query and fragment.
    pub url: &'a str,
    /// `iat`: the time by the clock of whoever reads it, as far as that is known.
    pub at: Timestamp,
    /// `jti`: a text that was never used before.
    pub identifier: &'a str,
    /// The reader's latest nonce.
    pub nonce: Option<&'a str>,
}

impl Prover {
    /// Proves that we hold `key`, which `token` is bound to where requests present one (RFC 9449 §7).
    pub fn new(key: &Arc<SigningKey>, token: Option<&SecretString>) -> Self {
        let token_hash = token.map(|token| token_hash(token.expose_secret()));
        Self { key: Arc::clone(key), header: header_of(key.public()), token_hash }
    }

    /// The value of [`HEADER`] for one request (RFC 9449 §4.2).
    pub fn prove(&self, occasion: &Occasion<'_>) -> HeaderValue {
        let Occasion { method, url, at, identifier, nonce } = occasion;
        let mut claims = serde_json::json!({ "htm": method, "htu": url, "iat": at.seconds(), "jti": identifier });
        if let Some(nonce) = nonce {
            claims["nonce"] = (*nonce).into();
        }
        if let Some(hash) = &self.token_hash {
            claims["ath"] = hash.as_str().into();
        }
        HeaderValue::try_from(self.key.sign(&self.header, &claims.to_string())).expect("base64url and dots are visible ASCII")
    }
}

impl fmt::Debug for Prover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prover").field("key", &self.key).finish_non_exhaustive()
    }
}

/// The header of all proofs made with `key`.
pub fn header_of(key: &PublicKey) -> String {
    format!(r#"{{"alg":"{}","typ":"dpop+jwt","jwk":{}}}"#, key.algorithm().as_str(), key.to_bare_jwk())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const NOW: i64 = 1_000_000;

    fn url() -> Url {
        Url::parse("https://two.example:7443/p2pi/orders%2Fnew").expect("a URL")
    }

    fn judged(key: &SigningKey, header: &str, changes: &[(&str, Value)]) -> Result<Proof, Refusal> {
        let mut claims = json!({ "htm": "POST", "htu": url().as_str(), "iat": NOW, "jti": "a", "ath": token_hash("token") });
        for (name, value) in changes {
            claims[*name] = value.clone();
        }
        let request = Request { method: "POST", urls: &[url()], token: Some("token") };
        judge(&key.sign(header, &claims.to_string()), &request, Timestamp::from_millis(NOW * 1000))
    }

    #[test]
    fn g6_a_proof_for_this_request_and_token_names_its_key() {
        let key = SigningKey::generate();
        let header = header_of(key.public());
        let proof = judged(&key, &header, &[("nonce", json!("n"))]).expect("believed");
        assert_eq!((proof.key, proof.nonce.as_deref()), (key.public().thumbprint(), Some("n")));
        for (name, value) in [
            ("htu", json!("HTTPS://Two.Example:7443/x/../p2pi/%6Frders%2fnew?a=b#c")),
            ("iat", json!(NOW - OLDEST)),
            ("iat", json!(NOW + AHEAD)),
            ("unknown", json!([])),
        ] {
            assert_eq!(judged(&key, &header, &[(name, value.clone())]).map(|proof| proof.once), Ok(proof.once), "{name} {value}");
        }
        let url = url();
        let ours =
            Occasion { method: "POST", url: url.as_str(), at: Timestamp::from_millis(NOW * 1000), identifier: "b", nonce: Some("n") };
        let ours = HeaderMap::from_iter([(HEADER, Prover::new(&Arc::new(key), Some(&"token".into())).prove(&ours))]);
        let request = Request { method: "POST", urls: std::slice::from_ref(&url), token: Some("token") };
        let read = presented(&ours, &request, Timestamp::from_millis(NOW * 1000)).expect("our own").expect("one");
        assert!(read.key == proof.key && read.once != proof.once);
    }

    #[test]
    fn g6_k3_one_thing_wrong_is_one_refusal() {
        let (key, other) = (SigningKey::generate(), SigningKey::generate());
        let header = header_of(key.public());
        for (name, value, expected) in [
            ("htm", json!("GET"), Refusal::Method),
            ("htm", json!("post"), Refusal::Method),
            ("htu", json!("https://two.example/p2pi/orders%2Fnew"), Refusal::Url),
            ("htu", json!("http://two.example:7443/p2pi/orders%2Fnew"), Refusal::Url),
            ("htu", json!("https://two.example:7443/p2pi/orders/new"), Refusal::Url),
            ("htu", json!("https://x@two.example:7443/p2pi/orders%2Fnew"), Refusal::Url),
            ("htu", json!("/p2pi/orders%2Fnew"), Refusal::Url),
            ("htu", json!(null), Refusal::Url),
            ("iat", json!(NOW - OLDEST - 1), Refusal::Time),
            ("iat", json!(NOW + AHEAD + 1), Refusal::Time),
            ("iat", json!(NOW + 61), Refusal::Time),
            ("iat", json!(i64::MIN), Refusal::Time),
            ("iat", json!(null), Refusal::Time),
            ("jti", json!(""), Refusal::Identifier),
            ("jti", json!("x".repeat(257)), Refusal::Identifier),
            ("ath", json!(token_hash("other")), Refusal::Token),
            ("ath", json!(null), Refusal::Token),
        ] {
            assert_eq!(judged(&key, &header, &[(name, value.clone())]), Err(expected), "{name} {value}");
        }
        let bare = key.public().to_bare_jwk();
        let private = bare.replace('{', r#"{"d":"AAAA","#);
        for (header, expected) in [
            (format!(r#"{{"alg":"ES256","jwk":{bare}}}"#), Refusal::Signature(BadSignature::Type)),
            (format!(r#"{{"alg":"ES256","typ":"jwt","jwk":{bare}}}"#), Refusal::Signature(BadSignature::Type)),
            (r#"{"alg":"ES256","typ":"dpop+jwt"}"#.to_owned(), Refusal::Key),
            (format!(r#"{{"alg":"ES256","typ":"dpop+jwt","jwk":{private}}}"#), Refusal::Key),
            (r#"{"alg":"ES256","typ":"dpop+jwt","jwk":{"kty":"oct","k":"AAAA"}}"#.to_owned(), Refusal::Key),
            (r#"{"alg":"HS256","typ":"dpop+jwt"}"#.to_owned(), Refusal::Signature(BadSignature::Algorithm)),
            (header_of(other.public()), Refusal::Signature(BadSignature::Signature)),
        ] {
            assert_eq!(judged(&key, &header, &[]), Err(expected), "{header}");
        }
    }

    #[test]
    fn g6_one_request_has_one_proof() {
        let request = Request { method: "GET", urls: &[], token: None };
        let read = |values: &[&'static str]| {
            let headers = values.iter().map(|value| (HEADER, HeaderValue::from_static(value))).collect();
            presented(&headers, &request, Timestamp::default())
        };
        assert_eq!(read(&[]), Ok(None));
        assert_eq!(read(&["a", "b"]), Err(Refusal::Several));
        assert_eq!(read(&["a, b"]), Err(Refusal::Signature(BadSignature::Form)));
    }
}
