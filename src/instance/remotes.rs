//! What has to be known of the servers of others to sign something for them: how far each one's clock is from ours, and
//! which nonce it wants next.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwapOption;
use http::HeaderMap;
use url::Url;

use crate::clock::Timestamp;
use crate::oauth::dpop::{self, NONCE_HEADER};

/// How far a clock may be from ours and still be followed, in milliseconds. A clock that nobody minds is off by minutes; a server that says that
/// it is another day, or was told so by somebody between, would be given signatures that hold on that day.
const FURTHEST: u64 = 60 * 60 * 1000;

/// The longest nonce that is kept.
const LONGEST_NONCE: usize = 1024;

/// Servers in memory at most; those that nobody uses at the moment go first.
const MOST: usize = 4 * 1024;

/// The servers that we sign for, by their origins.
#[derive(Debug, Default)]
pub struct Remotes {
    by_origin: Mutex<HashMap<String, Arc<Remote>>>,
}

/// What is known of one server.
#[derive(Debug, Default)]
pub struct Remote {
    /// How far its clock is ahead of ours, in milliseconds.
    ahead: AtomicI64,
    /// What the authorization server there last handed out for the next proof (RFC 9449 §8).
    server_nonce: ArcSwapOption<String>,
    /// What the resource there last handed out (RFC 9449 §9).
    resource_nonce: ArcSwapOption<String>,
}

/// Who looks at a proof. An authorization server and a resource may stand at one origin and know nothing of each other's nonces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verifier {
    /// The endpoints of an authorization server.
    Server,
    /// What the tokens are for.
    Resource,
}

impl Remotes {
    /// The server at the origin of `url`.
    pub fn at(&self, url: &Url) -> Arc<Remote> {
        let mut by_origin = self.by_origin.lock().unwrap_or_else(PoisonError::into_inner);
        if by_origin.len() >= MOST {
            by_origin.retain(|_, remote| Arc::strong_count(remote) > 1);
        }
        Arc::clone(by_origin.entry(url.origin().ascii_serialization()).or_default())
    }
}

impl Remote {
    /// Its clock when ours says `now`.
    pub fn time(&self, now: Timestamp) -> Timestamp {
        Timestamp::from_millis(now.millis().saturating_add(self.ahead.load(Ordering::Relaxed)))
    }

    /// How far its clock is ahead of ours, in milliseconds.
    pub fn ahead(&self) -> i64 {
        self.ahead.load(Ordering::Relaxed)
    }

    /// Its clock is that far ahead of ours, in milliseconds.
    pub fn set_ahead(&self, ahead: i64) {
        self.ahead.store(ahead, Ordering::Relaxed);
    }

    /// The nonce for the next proof to `verifier`. Where that has handed out none, the other's may be good for both, as it is at a p2pid.
    pub fn nonce(&self, verifier: Verifier) -> Option<Arc<String>> {
        let (own, other) = match verifier {
            Verifier::Server => (&self.server_nonce, &self.resource_nonce),
            Verifier::Resource => (&self.resource_nonce, &self.server_nonce),
        };
        own.load_full().or_else(|| other.load_full())
    }

    /// Takes the nonce that an answer of `verifier` hands out, if it does; one that no proof can carry is none.
    pub fn keep_nonce(&self, verifier: Verifier, headers: &HeaderMap) {
        let nonce = headers.get(NONCE_HEADER).and_then(|nonce| nonce.to_str().ok());
        if let Some(nonce) = nonce.filter(|nonce| nonce.len() <= LONGEST_NONCE && dpop::is_nonce(nonce)) {
            let kept = match verifier {
                Verifier::Server => &self.server_nonce,
                Verifier::Resource => &self.resource_nonce,
            };
            kept.store(Some(Arc::new(nonce.to_owned())));
        }
    }

    /// Its clock says `there` when ours says `now`; whether that is believed, which it is not where they are more than an hour apart.
    pub fn set_time(&self, there: Timestamp, now: Timestamp) -> bool {
        let is_near = there.millis().abs_diff(now.millis()) <= FURTHEST;
        if is_near {
            self.set_ahead(there.millis().saturating_sub(now.millis()));
        } else {
            tracing::warn!(%there, %now, "a server that refused our signature has a clock more than an hour from ours, which is not followed");
        }
        is_near
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_origin_has_a_clock_of_its_own() {
        let remotes = Remotes::default();
        let at = |url: &str| remotes.at(&Url::parse(url).expect("a URL"));
        let now = Timestamp::from_millis(1_000_000);
        let there = now.plus(Duration::from_secs(300));
        assert!(at("https://two.example.com/oauth/token").set_time(there, now));
        assert_eq!(at("https://two.example.com:443/p2pi").time(now), there);
        assert_eq!(at("https://two.example.com:444/").time(now), now);
    }

    #[test]
    fn c11_a_clock_that_is_days_off_is_not_followed() {
        let (remote, now) = (Remote::default(), Timestamp::from_millis(1_700_000_000_000));
        let (hour, more) = (Duration::from_secs(3600), Duration::from_secs(3601));
        assert!(remote.set_time(now.minus(hour), now) && remote.set_time(now.plus(hour), now));
        for there in [now.plus(more), now.minus(more), Timestamp::from_millis(i64::MAX), Timestamp::from_millis(0)] {
            assert!(!remote.set_time(there, now), "{}", there.millis());
        }
        assert_eq!(remote.time(now), now.plus(hour), "what was known stays");
    }

    #[test]
    fn c13_who_looks_at_proofs_is_shown_its_own_nonce_and_another_only_for_want_of_it() {
        let remote = Remote::default();
        let hands_out = |verifier, nonce: &str| {
            let value = nonce.parse().expect("a header's value");
            remote.keep_nonce(verifier, &HeaderMap::from_iter([(NONCE_HEADER, value)]));
        };
        let shown = || [Verifier::Server, Verifier::Resource].map(|verifier| remote.nonce(verifier).map(|nonce| nonce.to_string()));
        assert_eq!(shown(), [None, None]);
        hands_out(Verifier::Server, "s1");
        assert_eq!(shown(), [Some("s1".to_owned()), Some("s1".to_owned())]);
        hands_out(Verifier::Resource, "r1");
        hands_out(Verifier::Server, "s2");
        assert_eq!(shown(), [Some("s2".to_owned()), Some("r1".to_owned())]);
        for none in ["", "a\"b", "a\\b", "a b", "a\tb", &"n".repeat(LONGEST_NONCE + 1)] {
            hands_out(Verifier::Resource, none);
        }
        assert_eq!(shown(), [Some("s2".to_owned()), Some("r1".to_owned())]);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let remotes = Remotes::default();
        let used = remotes.at(&Url::parse("https://used.example").expect("a URL"));
        for number in 0..=MOST {
            remotes.at(&Url::parse(&format!("https://{number}.example")).expect("a URL"));
        }
        let known = remotes.by_origin.lock().expect("no panic");
        assert!(known.len() < 10 && known.get("https://used.example").is_some_and(|known| Arc::ptr_eq(known, &used)));
    }
}
