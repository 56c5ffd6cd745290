//! The keys of an OB app: what its assertions are signed with, and what others have to know of it.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::clock::Timestamp;
use crate::oauth::signing_key::SigningKey;

/// How long a key that was replaced is still published: what it signed last may still be under way.
const AFTERWARDS: Duration = Duration::from_secs(5 * 60);

/// One key, or one and its successor.
#[derive(Clone, Debug)]
pub struct Keys {
    /// What signs until the next does.
    pub current: Arc<SigningKey>,
    /// What signs later; it is published from the beginning, so that others know it by then.
    pub next: Option<Next>,
}

/// A key that takes over.
#[derive(Clone, Debug)]
pub struct Next {
    /// It.
    pub key: Arc<SigningKey>,
    /// From when on it signs.
    pub from: Timestamp,
}

impl Keys {
    /// One key.
    pub fn new(key: SigningKey) -> Self {
        Self { current: Arc::new(key), next: None }
    }

    /// What signs at `now`.
    pub fn in_force(&self, now: Timestamp) -> &Arc<SigningKey> {
        match &self.next {
            Some(next) if next.from <= now => &next.key,
            _ => &self.current,
        }
    }

    /// The keys with `key` as what signs `from` then on, and what signs at `now` until then. A successor that never came to sign is dropped.
    pub fn rotated(&self, key: SigningKey, from: Timestamp, now: Timestamp) -> Self {
        Self { current: Arc::clone(self.in_force(now)), next: Some(Next { key: Arc::new(key), from }) }
    }

    /// The public halves that others have to know at `now`, as a JSON Web Key Set (RFC 7517 §5).
    pub fn published(&self, now: Timestamp) -> Value {
        let is_current = self.next.as_ref().is_none_or(|next| now < next.from.plus(AFTERWARDS));
        let keys = is_current.then_some(&self.current).into_iter().chain(self.next.as_ref().map(|next| &next.key));
        json!({ "keys": keys.map(|key| with_algorithm(key)).collect::<Vec<_>>() })
    }
}

fn with_algorithm(key: &SigningKey) -> Value {
    let mut jwk = key.public().to_jwk();
    jwk["alg"] = key.public().algorithm().as_str().into();
    jwk
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oauth::key::KeySet;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000)
    }

    #[test]
    fn c12_a_successor_is_published_before_it_signs_and_its_predecessor_a_while_after() {
        let first = Keys::new(SigningKey::generate());
        let keys = first.rotated(SigningKey::generate_ed25519(), at(100), at(50));
        let next = Arc::clone(&keys.next.as_ref().expect("there is one").key);
        let published = |keys: &Keys, now| {
            let set = KeySet::read(keys.published(now).to_string().as_bytes()).expect("a set");
            set.keys().iter().map(|key| key.thumbprint()).collect::<Vec<_>>()
        };
        let (old, new) = (first.current.public().thumbprint(), next.public().thumbprint());
        assert_eq!(keys.in_force(at(99)).public().thumbprint(), old);
        assert_eq!(keys.in_force(at(100)).public().thumbprint(), new);
        assert_eq!(published(&first, at(0)), [old]);
        assert_eq!(published(&keys, at(50)), [old, new]);
        assert_eq!(published(&keys, at(399)), [old, new]);
        assert_eq!(published(&keys, at(400)), [new]);
        let third = keys.rotated(SigningKey::generate(), at(200), at(60));
        assert_eq!(third.current.public().thumbprint(), old, "the second never signed");
        let third = keys.rotated(SigningKey::generate(), at(200), at(150));
        assert_eq!(third.current.public().thumbprint(), new);
        assert!(!keys.published(at(50)).to_string().contains("\"d\""));
    }
}
