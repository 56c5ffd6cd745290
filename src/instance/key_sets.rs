//! Public keys that clients keep at a URL of theirs (RFC 7517 §5, RFC 7591 `jwks_uri`), fetched when they are needed.
//!
//! A set is kept for an hour. A signature by a key that is not in it makes us look again, every ten seconds at most: that is how a client
//! changes its keys (OpenID Connect Core §10.1.1), and how nobody makes us fetch without end.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::ACCEPT;
use url::Url;

use super::Instance;
use crate::clock::Moment;
use crate::inbound::security::Keys;
use crate::net::client::Client;
use crate::net::trust::Trust;
use crate::oauth::key::KeySet;

/// How long a set is believed without another look.
const KEPT: Duration = Duration::from_secs(60 * 60);
/// How long one is believed when nothing newer can be had.
const KEPT_AT_MOST: Duration = Duration::from_secs(24 * 60 * 60);
/// A look at a URL for a key that is missing, or after a look that failed, comes this long after the last at the earliest.
const BETWEEN_LOOKS: Duration = Duration::from_secs(10);
/// The largest set that is read.
const MOST_BYTES: usize = 64 * 1024;
/// Sets in memory at most.
const MOST_SETS: usize = 4 * 1024;

/// The sets that were fetched.
#[derive(Debug, Default)]
pub struct KeySets {
    sets: Mutex<HashMap<Url, Arc<tokio::sync::Mutex<Fetched>>>>,
}

/// What is known of one URL.
#[derive(Debug, Default)]
struct Fetched {
    keys: Option<(Arc<KeySet>, Moment)>,
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

impl KeySets {
    /// The keys that something is to be judged by; `has_it` says whether a set has the one that is meant.
    pub async fn of(&self, instance: &Instance, keys: &Keys, has_it: impl Fn(&KeySet) -> bool + Send) -> Result<Arc<KeySet>, NoKeys> {
        let (url, guarded) = match keys {
            Keys::Inline(set) => return Ok(Arc::new(set.clone())),
            Keys::Url { url, guarded } => (url, *guarded),
        };
        // Who asks for the same set at the same time waits for one look.
        let entry = self.entry(url);
        let mut fetched = entry.lock().await;
        let now = instance.clock.now();
        if let Some((set, since)) = &fetched.keys
            && now.age_of(since) < KEPT
            && has_it(set)
        {
            return Ok(Arc::clone(set));
        }
        let may_look = fetched.looked_at.is_none_or(|last| now.age_of(&last) >= BETWEEN_LOOKS);
        if may_look {
            fetched.looked_at = Some(now);
            match fetch(instance, url, guarded).await {
                Ok(set) => fetched.keys = Some((Arc::new(set), now)),
                Err(why) => tracing::warn!(%url, why, "a client's keys could not be fetched"),
            }
        }
        let known = fetched.keys.as_ref().filter(|(_, since)| now.age_of(since) < KEPT_AT_MOST).map(|(set, _)| Arc::clone(set));
        known.ok_or_else(|| NoKeys { url: url.clone(), why: "the last look failed; see the log".to_owned() })
    }

    fn entry(&self, url: &Url) -> Arc<tokio::sync::Mutex<Fetched>> {
        let mut sets = self.lock();
        if sets.len() >= MOST_SETS && !sets.contains_key(url) {
            sets.clear();
        }
        Arc::clone(sets.entry(url.clone()).or_default())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Url, Arc<tokio::sync::Mutex<Fetched>>>> {
        self.sets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Fetches a set under the trust of peers, without following redirects.
async fn fetch(instance: &Instance, url: &Url, guarded: bool) -> Result<KeySet, String> {
    let config = instance.config();
    let trust = Trust::system(&config.trust.ca).map_err(|error| error.to_string())?;
    let client = if guarded { Client::guarded(&trust, &config.limits) } else { Client::new(&trust, &config.limits) };
    let request = http::Request::get(url.as_str()).header(ACCEPT, "application/jwk-set+json, application/json").body(Bytes::new());
    let request = request.map_err(|error| error.to_string())?;
    let response = client.fetch(request, config.limits.token_timeout, MOST_BYTES).await.map_err(|error| error.to_string())?;
    if response.status() != http::StatusCode::OK {
        return Err(format!("it answered {}, expected 200", response.status()));
    }
    KeySet::read(response.body()).map_err(|error| error.to_string())
}
