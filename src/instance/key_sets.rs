//! Public keys that clients keep at a URL of theirs (RFC 7517 §5, RFC 7591 `jwks_uri`), fetched when they are needed.
//!
//! A set is kept for an hour. A signature by a key that is not in it makes us look again, every ten seconds at most: that is how a client
//! changes its keys (OpenID Connect Core §10.1.1), and how nobody makes us fetch without end.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::ACCEPT;
use quick_cache::unsync::Cache;
use url::Url;

use super::Instance;
use crate::clock::{Clock, Moment};
use crate::config::Config;
use crate::inbound::security::Keys;
use crate::net::client::{Client, FetchError};
use crate::net::outgoing::{Purpose, Share};
use crate::net::trust::{Trust, Untrusted};
use crate::oauth::key::KeySet;

/// How long a set is believed without another look.
const KEPT: Duration = Duration::from_secs(60 * 60);
/// How long one is believed when nothing newer can be had.
const KEPT_AT_MOST: Duration = Duration::from_secs(24 * 60 * 60);
/// A look at a URL for a key that is missing, or after a look that failed, comes this long after the last at the earliest.
const BETWEEN_LOOKS: Duration = Duration::from_secs(10);
/// The largest set that is read.
const MOST_BYTES: usize = 64 * 1024;
/// Sets in memory at most; the least used go first, one at a time.
const MOST_SETS: usize = 4 * 1024;

/// The sets that were fetched.
#[derive(Debug)]
pub struct KeySets {
    sets: Mutex<Cache<Url, Arc<Entry>>>,
}

impl Default for KeySets {
    fn default() -> Self {
        Self { sets: Mutex::new(Cache::new(MOST_SETS)) }
    }
}

/// One URL.
#[derive(Debug, Default)]
struct Entry {
    known: Mutex<Known>,
    /// Held by who looks, so that there is one look at a time. Nobody who finds what they need in `known` waits for it.
    looking: tokio::sync::Mutex<()>,
}

/// What is known of a URL.
#[derive(Debug, Default)]
struct Known {
    keys: Option<(Arc<KeySet>, Moment)>,
    /// When the last look ended.
    looked_at: Option<Moment>,
}

/// There are no keys to judge a signature by.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the client's keys at {url} cannot be had: {why}")]
pub struct NoKeys {
    /// Where.
    url: Url,
    /// The reason.
    why: String,
}

/// Why a look at a URL brought no keys.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotFetched {
    /// Nobody vouches for the certificate of the host.
    #[error("{0}")]
    Untrusted(Untrusted),
    /// Everything else: no answer, another status than 200, or no set of usable keys.
    #[error("{0}")]
    Other(String),
}

impl KeySets {
    /// A look at a client's URL whether there are keys now, for who registers it. What is found is kept as after any other look; one that failed
    /// keeps nobody from looking.
    pub async fn try_url(&self, instance: &Instance, url: &Url, guarded: bool) -> Result<Arc<KeySet>, NotFetched> {
        let begun = instance.clock.now();
        let set = fetch(&instance.config(), instance.outgoing.share(Purpose::Own), url, guarded).await?;
        Ok(self.entry(url).keep(set, begun, instance.clock.now()))
    }

    /// The keys that something is to be judged by; `has_it` says whether a set has the one that is meant.
    pub async fn of(&self, instance: &Instance, keys: &Keys, has_it: impl Fn(&KeySet) -> bool + Send) -> Result<Arc<KeySet>, NoKeys> {
        let (url, guarded) = match keys {
            Keys::Inline(set) => return Ok(Arc::new(set.clone())),
            Keys::Url { url, guarded } => (url, *guarded),
        };
        let entry = self.entry(url);
        let now = instance.clock.now();
        if let Some(set) = entry.set(&now, KEPT).filter(|set| has_it(set)) {
            return Ok(set);
        }
        if entry.may_look(&now) {
            // A task of its own: whoever asks may give up before the other side answers, and the look is over for all at its end.
            let look = look(
                Arc::clone(&entry),
                instance.config(),
                instance.outgoing.share(Purpose::Own),
                Arc::clone(&instance.clock),
                url.clone(),
                guarded,
            );
            tokio::spawn(look).await.expect("a look does not panic, and nobody ends it");
        }
        let known = entry.set(&instance.clock.now(), KEPT_AT_MOST);
        known.ok_or_else(|| NoKeys { url: url.clone(), why: "the last look failed; see the log".to_owned() })
    }

    fn entry(&self, url: &Url) -> Arc<Entry> {
        let mut sets = self.sets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = sets.get(url) {
            return Arc::clone(entry);
        }
        let entry = Arc::<Entry>::default();
        sets.insert(url.clone(), Arc::clone(&entry));
        entry
    }
}

impl Entry {
    /// The set, if it is not older than `kept`.
    fn set(&self, now: &Moment, kept: Duration) -> Option<Arc<KeySet>> {
        self.lock().keys.as_ref().filter(|(_, since)| now.age_of(since) < kept).map(|(set, _)| Arc::clone(set))
    }

    /// Keeps a set that a look brought, which began and ended at these times.
    fn keep(&self, set: KeySet, begun: Moment, ended: Moment) -> Arc<KeySet> {
        let set = Arc::new(set);
        *self.lock() = Known { keys: Some((Arc::clone(&set), begun)), looked_at: Some(ended) };
        set
    }

    fn may_look(&self, now: &Moment) -> bool {
        self.lock().looked_at.is_none_or(|last| now.age_of(&last) >= BETWEEN_LOOKS)
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks at the URL, or waits for the look that is under way.
async fn look(entry: Arc<Entry>, config: Arc<Config>, share: Share, clock: Arc<dyn Clock>, url: Url, guarded: bool) {
    let _alone = entry.looking.lock().await;
    let begun = clock.now();
    if !entry.may_look(&begun) {
        return;
    }
    match fetch(&config, share, &url, guarded).await {
        Ok(set) => {
            entry.keep(set, begun, clock.now());
        }
        Err(why) => {
            entry.lock().looked_at = Some(clock.now());
            tracing::warn!(%url, %why, "a client's keys could not be fetched");
        }
    }
}

/// Fetches a set under the trust of peers, without following redirects.
async fn fetch(config: &Config, share: Share, url: &Url, guarded: bool) -> Result<KeySet, NotFetched> {
    let other = |why: &dyn fmt::Display| NotFetched::Other(why.to_string());
    let trust = Trust::system(&config.trust.ca).map_err(|error| other(&error))?;
    let client = if guarded { Client::guarded(&trust, &config.limits, share) } else { Client::new(&trust, &config.limits, share) };
    let request = http::Request::get(url.as_str()).header(ACCEPT, "application/jwk-set+json, application/json").body(Bytes::new());
    let request = request.map_err(|error| other(&error))?;
    let response = client.fetch(request, config.limits.token_timeout, MOST_BYTES).await.map_err(|error| match error {
        FetchError::Untrusted(untrusted) => NotFetched::Untrusted(untrusted),
        error => other(&error),
    })?;
    if response.status() != http::StatusCode::OK {
        return Err(NotFetched::Other(format!("it answered {}, expected 200", response.status())));
    }
    KeySet::read(response.body()).map_err(|error| other(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn k4_of_too_many_sets_the_least_used_go_and_not_all() {
        let sets = KeySets::default();
        let url = |number: usize| Url::parse(&format!("https://client.example/{number}/jwks")).expect("a URL");
        let used = sets.entry(&url(0));
        for number in 1..=2 * MOST_SETS {
            sets.entry(&url(number));
            assert!(Arc::ptr_eq(&used, &sets.entry(&url(0))), "after {number} others");
        }
        assert_eq!(sets.sets.lock().expect("nobody panicked").len(), MOST_SETS);
    }
}
