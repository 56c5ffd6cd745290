//! Callers: local applications that may use the relay, each with a key of its own.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::clock::Timestamp;
use crate::id::Id;
use crate::oauth::token::{self, Kind};
use crate::secret::Digest;

/// A local application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Its identity.
    pub id: Id,
    /// Whose peers it calls.
    pub tenant: String,
    /// Unique in its tenant.
    pub name: String,
    /// Of its key, which is nowhere else.
    pub key: Digest,
    /// The peers that it may call; `None` is all of its tenant. They are named by identity: a peer that later gets the same name is another.
    pub peers: Option<Vec<Id>>,
    /// When it was made.
    pub created_at: Timestamp,
}

impl Caller {
    /// Whether it may call `peer`, which is of its tenant.
    pub fn may_call(&self, peer: Id) -> bool {
        self.peers.as_ref().is_none_or(|peers| peers.contains(&peer))
    }
}

/// All callers by the digest of their key, as the relay looks them up: without a lock and without the store.
#[derive(Debug, Default)]
pub struct CallerTable(ArcSwap<HashMap<Digest, Arc<Caller>>>);

impl CallerTable {
    /// Puts `callers` in place of all that were there.
    pub fn replace(&self, callers: impl IntoIterator<Item = Caller>) {
        self.0.store(Arc::new(callers.into_iter().map(|caller| (caller.key, Arc::new(caller))).collect()));
    }

    /// The caller whose key this is.
    pub fn find(&self, key: &str) -> Option<Arc<Caller>> {
        let digest = token::digest_if(Kind::CallerKey, key)?;
        self.0.load().get(&digest).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::ExposeSecret;
    use crate::system::SystemRandom;

    #[test]
    fn a_caller_is_found_by_its_key_and_calls_what_it_may() {
        let key = token::mint(Kind::CallerKey, &SystemRandom);
        let (one, other) = (Id::from_bytes([1; 16]), Id::from_bytes([2; 16]));
        let caller = Caller {
            id: Id::from_bytes([9; 16]),
            tenant: "default".into(),
            name: "shop".into(),
            key: Digest::of(key.expose_secret()),
            peers: Some(vec![one]),
            created_at: Timestamp::from_millis(0),
        };
        assert!(caller.may_call(one) && !caller.may_call(other));
        assert!(Caller { peers: None, ..caller.clone() }.may_call(other));
        assert!(!Caller { peers: Some(vec![]), ..caller.clone() }.may_call(one));

        let table = CallerTable::default();
        assert!(table.find(key.expose_secret()).is_none());
        table.replace([caller]);
        assert_eq!(table.find(key.expose_secret()).expect("it is there").name, "shop");
        assert!(table.find(token::mint(Kind::CallerKey, &SystemRandom).expose_secret()).is_none());
        assert!(table.find("").is_none());
        table.replace([]);
        assert!(table.find(key.expose_secret()).is_none());
    }
}
