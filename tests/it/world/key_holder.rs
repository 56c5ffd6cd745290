//! A client that holds keys: it signs assertions (`private_key_jwt`) and DPoP proofs, or spoils them as a test says.

use std::sync::atomic::{AtomicU32, Ordering};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use p2pid::clock::Clock;
use p2pid::oauth::signing_key::SigningKey;
use serde_json::{Value, json};

use super::World;
use super::client::VERIFIER;
use super::message::Message;

/// A key of the client's, and how often something was signed with it.
pub(crate) struct Holder {
    pub(crate) key: SigningKey,
    signed: AtomicU32,
}

impl Holder {
    pub(crate) fn new() -> Self {
        Self { key: SigningKey::generate(), signed: AtomicU32::new(0) }
    }

    pub(crate) fn jwks(&self) -> Value {
        json!({ "keys": [self.key.public().to_jwk()] })
    }

    /// An assertion of `client_id` for beta, with `changes`; a change to null takes the claim away.
    pub(crate) fn assertion(&self, world: &World, client_id: &str, changes: Value) -> String {
        let now = world.clock.now().wall.seconds();
        let claims = json!({
            "iss": client_id, "sub": client_id, "aud": world.beta.settings.url(), "iat": now, "exp": now + 60, "jti": self.next(),
        });
        self.key.sign(r#"{"alg":"ES256","typ":"JWT"}"#, &changed(claims, changes))
    }

    /// The form parameters of such an assertion.
    pub(crate) fn asserts(&self, world: &World, client_id: &str) -> [(&'static str, String); 2] {
        let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer".to_owned();
        [("client_assertion_type", kind), ("client_assertion", self.assertion(world, client_id, json!({})))]
    }

    /// A proof for a request to beta, with `changes` to its claims.
    pub(crate) fn proof(&self, world: &World, method: &str, path: &str, changes: Value) -> String {
        let now = world.clock.now().wall.seconds();
        let claims = json!({ "htm": method, "htu": format!("{}{path}", world.beta.settings.url()), "iat": now, "jti": self.next() });
        let header = json!({ "alg": "ES256", "typ": "dpop+jwt", "jwk": self.key.public().to_jwk() });
        self.key.sign(&header.to_string(), &changed(claims, changes))
    }

    /// Posts a form with a proof, and once more with the nonce that is asked for.
    pub(crate) async fn proves(&self, world: &World, path: &str, form: &[(&str, &str)], basic: Option<(&str, &str)>) -> Message {
        let first = self.posts(world, path, form, basic, json!({})).await;
        match first.header("dpop-nonce") {
            Some(nonce) if first.status() == 400 => self.posts(world, path, form, basic, json!({ "nonce": nonce })).await,
            _ => first,
        }
    }

    /// Posts a form with a proof whose claims have `changes`.
    pub(crate) async fn posts(
        &self,
        world: &World,
        path: &str,
        form: &[(&str, &str)],
        basic: Option<(&str, &str)>,
        changes: Value,
    ) -> Message {
        let proof = self.proof(world, "POST", path, changes);
        let basic =
            basic.map(|(id, secret)| format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{id}:{secret}"))));
        let mut headers = vec![("Content-Type", "application/x-www-form-urlencoded"), ("DPoP", proof.as_str())];
        headers.extend(basic.as_deref().map(|basic| ("Authorization", basic)));
        world.beta.is_asked("POST", path, &headers, &encoded(form)).await
    }

    /// Calls beta's application with a token under the scheme `DPoP`, by a proof with `changes`.
    pub(crate) async fn calls(&self, world: &World, token: &str, changes: Value) -> Message {
        let mut claims = json!({ "ath": hash_of(token) });
        claims.as_object_mut().expect("an object").extend(changes.as_object().expect("an object").clone());
        let proof = self.proof(world, "GET", "/p2pi/orders", claims);
        presents(world, "DPoP", token, Some(&proof)).await
    }

    fn next(&self) -> String {
        format!("number-{}-of-{}", self.signed.fetch_add(1, Ordering::Relaxed), self.key.public().thumbprint())
    }
}

/// A call of beta's application with a token under any scheme, and any proof.
pub(crate) async fn presents(world: &World, scheme: &str, token: &str, proof: Option<&str>) -> Message {
    let authorization = format!("{scheme} {token}");
    let mut headers = vec![("Authorization", authorization.as_str())];
    headers.extend(proof.map(|proof| ("DPoP", proof)));
    world.beta.is_asked("GET", "/p2pi/orders?x=1", &headers, "").await
}

/// A form as it is sent.
pub(crate) fn encoded(form: &[(&str, &str)]) -> String {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish()
}

/// The form that redeems a code.
pub(crate) fn redeeming<'a>(code: &'a str, redirect_uri: &'a str) -> [(&'a str, &'a str); 4] {
    [("grant_type", "authorization_code"), ("code", code), ("redirect_uri", redirect_uri), ("code_verifier", VERIFIER)]
}

/// `ath` of a token.
pub(crate) fn hash_of(token: &str) -> String {
    URL_SAFE_NO_PAD.encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, token.as_bytes()))
}

/// The claims with `changes`; one that becomes null is taken away.
fn changed(mut claims: Value, changes: Value) -> String {
    let members = claims.as_object_mut().expect("an object");
    members.extend(changes.as_object().expect("an object").clone());
    members.retain(|_, value| !value.is_null());
    claims.to_string()
}
