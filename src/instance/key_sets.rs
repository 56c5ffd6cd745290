//! Public keys that clients keep at a URL of theirs (RFC 7517 §5, RFC 7591 `jwks_uri`), fetched when they are needed.
//!
//! A set is kept for an hour. A signature by a key that is not in it makes us look again, every ten seconds at most: that is how a client
//! changes its keys (OpenID Connect Core §10.1.1), and how nobody makes us fetch without end.
//!
//! A URL that never answers holds a connection for `limits.token_timeout`. So looks have a part of their own of the connections that go out
//! ([`Purpose::Keys`]), one tenant has at most a quarter of that, and one app has one look at a time; they take turns.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::ACCEPT;
use quick_cache::unsync::Cache;
use tokio::time::Instant;
use url::Url;

use super::Instance;
use crate::clock::{Clock, Moment};
use crate::config::Config;
use crate::id::Id;
use crate::inbound::ib_app::IbApp;
use crate::inbound::security::Keys;
use crate::net::client::{Client, FetchError};
use crate::net::lane::{Lane, Pass, Width};
use crate::net::outgoing::{Outgoing, Purpose};
use crate::net::places;
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
/// One tenant has a quarter of the connections for keys, and at least so many, but no more than half of them.
const LEAST_OF_TENANT: usize = 2;
/// So many times its places a tenant's looks may wait for one.
const WAITING: usize = 16;
/// How long a look waits for its turn and for a connection, all in all.
const TURN: Duration = Duration::from_secs(5);

/// The sets that were fetched.
#[derive(Debug)]
pub struct KeySets {
    sets: Mutex<Cache<Source, Arc<Entry>>>,
    turns: Arc<Turns>,
}

/// Where a set is looked for, and how. Who may not reach private addresses learns nothing of what was read by somebody who may, and by a look that
/// failed keeps nobody who may from looking.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Source {
    url: Url,
    guarded: bool,
}

/// The looks that are under way or wait for their turn.
#[derive(Debug, Default)]
struct Turns {
    tenants: Mutex<HashMap<String, Arc<Lane>>>,
    apps: Mutex<HashMap<Id, Arc<Lane>>>,
}

/// Whose keys are looked for.
#[derive(Clone, Debug)]
struct Owner {
    tenant: String,
    app: Id,
}

impl Default for KeySets {
    fn default() -> Self {
        Self { sets: Mutex::new(Cache::new(MOST_SETS)), turns: Arc::default() }
    }
}

/// One source.
#[derive(Debug, Default)]
struct Entry {
    known: Mutex<Known>,
    /// Held by who looks, so that there is one look at a time. Nobody who finds what they need in `known` waits for it.
    looking: tokio::sync::Mutex<()>,
}

/// What is known of a source.
#[derive(Debug, Default)]
struct Known {
    keys: Option<(Arc<KeySet>, Moment)>,
    /// When the last look ended.
    looked_at: Option<Moment>,
    /// How many looks found no place. They say nothing of the URL, so the next may look at once.
    without_place: u64,
}

/// There are no keys to judge a signature by.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoKeys {
    /// None were ever read there, or so long ago that they count for nothing.
    #[error("the client's keys at {0} cannot be had: the last look failed; see the log")]
    Unread(Url),
    /// There was no place to look for one that is not among those that are known.
    #[error("the client's keys at {0} cannot be looked at now: as many looks for keys are under way as may be")]
    Full(Url),
}

/// Why a look at a URL brought no keys.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotFetched {
    /// Nobody vouches for the certificate of the host.
    #[error("{0}")]
    Untrusted(Untrusted),
    /// As many connections for keys are in use as may be, or as this tenant or app may have.
    #[error("{0}")]
    Full(String),
    /// Everything else: no answer, another status than 200, or no set of usable keys.
    #[error("{0}")]
    Other(String),
}

impl KeySets {
    /// A look at a client's URL whether there are keys now, for who registers `app`. What is found is kept as after any other look; one that failed
    /// keeps nobody from looking.
    pub async fn try_url(&self, instance: &Instance, app: &IbApp, url: &Url, guarded: bool) -> Result<Arc<KeySet>, NotFetched> {
        let begun = instance.clock.now();
        let until = Instant::now() + TURN;
        let _turn = self.turns.enter(&Owner::of(app), instance.outgoing.limit(Purpose::Keys), until).await?;
        let set = fetch(&instance.config(), &instance.outgoing, url, guarded, until).await?;
        Ok(self.entry(url, guarded).keep(set, begun, instance.clock.now()))
    }

    /// What `find` finds by the keys of `app`, which are at `keys`: something that one of them signed, for example. Each set is asked once.
    ///
    /// # Errors
    ///
    /// [`NoKeys`]: nothing can be said of the client now, and the next look may find its keys. Inside, what `find` says of the newest set.
    pub async fn find<T: Send, E: Send>(
        &self,
        instance: &Instance,
        app: &IbApp,
        keys: &Keys,
        find: impl Fn(&KeySet) -> Result<T, E> + Send,
    ) -> Result<Result<T, E>, NoKeys> {
        let (url, guarded) = match keys {
            Keys::Inline(set) => return Ok(find(set)),
            Keys::Url { url, guarded } => (url, *guarded),
        };
        let entry = self.entry(url, guarded);
        let now = instance.clock.now();
        let mut asked = None;
        if let Some(set) = entry.set(&now, KEPT) {
            match find(&set) {
                Ok(found) => return Ok(Ok(found)),
                Err(why) => asked = Some((set, why)),
            }
        }
        let mut has_looked = Ok(());
        if entry.may_look(&now) {
            let look = Look {
                entry: Arc::clone(&entry),
                turns: Arc::clone(&self.turns),
                owner: Owner::of(app),
                config: instance.config(),
                outgoing: Arc::clone(&instance.outgoing),
                clock: Arc::clone(&instance.clock),
                url: url.clone(),
                guarded,
            };
            // A task of its own: whoever asks may give up before the other side answers, and the look is over for all at its end.
            has_looked = tokio::spawn(look.run()).await.expect("a look does not panic, and nobody ends it");
        }
        let Some(set) = entry.set(&instance.clock.now(), KEPT_AT_MOST) else {
            return Err(has_looked.map_or_else(|NoPlace| NoKeys::Full(url.clone()), |()| NoKeys::Unread(url.clone())));
        };
        let found = match asked {
            Some((before, why)) if Arc::ptr_eq(&before, &set) => Err(why),
            Some(_) | None => find(&set),
        };
        // Without a look nobody knows whether the key is a new one of the client's or a stranger's.
        if found.is_err() && has_looked.is_err() { Err(NoKeys::Full(url.clone())) } else { Ok(found) }
    }

    fn entry(&self, url: &Url, guarded: bool) -> Arc<Entry> {
        let source = Source { url: url.clone(), guarded };
        let mut sets = self.sets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = sets.get(&source) {
            return Arc::clone(entry);
        }
        let entry = Arc::<Entry>::default();
        sets.insert(source, Arc::clone(&entry));
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
        let mut known = self.lock();
        (known.keys, known.looked_at) = (Some((Arc::clone(&set), begun)), Some(ended));
        drop(known);
        set
    }

    fn may_look(&self, now: &Moment) -> bool {
        self.lock().looked_at.is_none_or(|last| now.age_of(&last) >= BETWEEN_LOOKS)
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// There was no place for a look.
#[derive(Clone, Copy, Debug)]
struct NoPlace;

/// A look at a URL.
struct Look {
    entry: Arc<Entry>,
    turns: Arc<Turns>,
    owner: Owner,
    config: Arc<Config>,
    outgoing: Arc<Outgoing>,
    clock: Arc<dyn Clock>,
    url: Url,
    guarded: bool,
}

impl Look {
    /// Looks, or waits for the look that is under way, and has its outcome.
    async fn run(self) -> Result<(), NoPlace> {
        let entry = &self.entry;
        let without_place = entry.lock().without_place;
        let _alone = entry.looking.lock().await;
        if entry.lock().without_place != without_place {
            return Err(NoPlace);
        }
        if !entry.may_look(&self.clock.now()) {
            return Ok(());
        }
        let looked = async {
            let until = Instant::now() + TURN;
            let _turn = self.turns.enter(&self.owner, self.outgoing.limit(Purpose::Keys), until).await?;
            let begun = self.clock.now();
            fetch(&self.config, &self.outgoing, &self.url, self.guarded, until).await.map(|set| (set, begun))
        };
        match looked.await {
            Ok((set, begun)) => {
                entry.keep(set, begun, self.clock.now());
            }
            Err(NotFetched::Full(why)) => {
                entry.lock().without_place += 1;
                tracing::info!(url = %self.url, why, "a client's keys were not looked at");
                return Err(NoPlace);
            }
            Err(why @ (NotFetched::Untrusted(_) | NotFetched::Other(_))) => {
                entry.lock().looked_at = Some(self.clock.now());
                tracing::warn!(url = %self.url, %why, "a client's keys could not be fetched");
            }
        }
        Ok(())
    }
}

impl Owner {
    fn of(app: &IbApp) -> Self {
        Self { tenant: app.tenant.clone(), app: app.id }
    }
}

impl Turns {
    /// The turn of a look for `owner`'s keys, of which there are `all`: its app's, then its tenant's, both before `until`.
    async fn enter(&self, owner: &Owner, all: usize, until: Instant) -> Result<[Pass; 2], NotFetched> {
        let most = of_tenant(all);
        let queue = most.saturating_mul(WAITING);
        let full = |of: &str| NotFetched::Full(format!("as many looks for keys of this {of} are under way as may be; try again"));
        let left = || until.saturating_duration_since(Instant::now());
        let app = lane(&self.apps, &owner.app).enter(Width { calls: 1, queue, wait: left() }).await.ok_or_else(|| full("app"))?;
        let tenant = lane(&self.tenants, &owner.tenant).enter(Width { calls: most, queue, wait: left() }).await;
        Ok([app, tenant.ok_or_else(|| full("tenant"))?])
    }
}

/// How many of `all` connections for keys one tenant may have.
fn of_tenant(all: usize) -> usize {
    places::share(all, LEAST_OF_TENANT)
}

/// The lane that `key` names. Those that nobody is on are forgotten.
fn lane<K: Clone + Eq + Hash>(lanes: &Mutex<HashMap<K, Arc<Lane>>>, key: &K) -> Arc<Lane> {
    let mut lanes = lanes.lock().unwrap_or_else(PoisonError::into_inner);
    // Whoever waits for a place, or has one, holds the lane.
    lanes.retain(|_, lane| Arc::strong_count(lane) > 1);
    Arc::clone(lanes.entry(key.clone()).or_default())
}

/// Fetches a set under the trust of peers, without following redirects. A connection has to be had before `until`.
async fn fetch(config: &Config, outgoing: &Arc<Outgoing>, url: &Url, guarded: bool, until: Instant) -> Result<KeySet, NotFetched> {
    let share = outgoing.share(Purpose::Keys).until(until);
    let other = |why: &dyn fmt::Display| NotFetched::Other(why.to_string());
    let trust = Trust::system(&config.trust.ca).map_err(|error| other(&error))?;
    let client = if guarded { Client::guarded(&trust, &config.limits, share) } else { Client::new(&trust, &config.limits, share) };
    let request = http::Request::get(url.as_str()).header(ACCEPT, "application/jwk-set+json, application/json").body(Bytes::new());
    let request = request.map_err(|error| other(&error))?;
    let response = client.fetch(request, config.limits.token_timeout, MOST_BYTES).await.map_err(|error| match error {
        FetchError::Untrusted(untrusted) => NotFetched::Untrusted(untrusted),
        FetchError::Full(why) => NotFetched::Full(why),
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
    use crate::store::{Store, sample};
    use crate::system::{SystemClock, SystemRandom};

    #[test]
    fn one_tenant_has_a_quarter_of_the_looks_and_of_few_places_two_or_half() {
        assert_eq!([1, 2, 3, 4, 5, 8, 12, 312].map(of_tenant), [1, 1, 1, 2, 2, 2, 3, 78]);
    }

    #[tokio::test]
    async fn an_app_has_one_look_at_a_time_and_lanes_that_nobody_is_on_are_forgotten() {
        let turns = Turns::default();
        let app = sample::app();
        let owner = Owner::of(&app);
        let turn = turns.enter(&owner, 8, Instant::now()).await.expect("it is the first");
        assert!(lane(&turns.apps, &owner.app).try_enter(1).is_none() && lane(&turns.tenants, &owner.tenant).running() == 1);
        drop(turn);
        assert!(turns.enter(&owner, 8, Instant::now()).await.is_ok());
        assert_eq!((lane(&turns.apps, &Id::from_bytes([0; 16])).running(), turns.apps.lock().expect("no panic").len()), (0, 1));
    }

    #[tokio::test]
    async fn a_turn_is_waited_for_until_one_deadline_and_a_tenant_leaves_room_for_others() {
        let turns = Turns::default();
        let owner = |tenant: &str, app: u8| Owner { tenant: tenant.to_owned(), app: Id::from_bytes([app; 16]) };
        let soon = || Instant::now() + Duration::from_millis(20);
        for (all, has_room) in [(1, false), (2, true), (3, true), (5, true)] {
            let mut held = Vec::new();
            for app in 0..9 {
                held.extend(turns.enter(&owner("sales", app), all, soon()).await.ok());
            }
            assert_eq!((held.len(), held.len() < all), (of_tenant(all), has_room), "{all}");
            assert!(turns.enter(&owner("other", 100), all, soon()).await.is_ok(), "{all}");
        }
        let (begun, _held) = (Instant::now(), turns.enter(&owner("sales", 0), 1, soon()).await.expect("it is free"));
        for app in [0, 1] {
            let late = turns.enter(&owner("sales", app), 1, begun).await.expect_err("the app's turn, then the tenant's");
            assert!(matches!(late, NotFetched::Full(_)) && begun.elapsed() < TURN, "{app}");
        }
    }

    #[tokio::test]
    async fn k4_a_set_is_asked_once_whether_or_not_it_has_the_key() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("one.toml");
        let text = "[instance]\nname = \"one\"\npublic_url = \"https://one.example.com\"\n[public]\ntls = \"self-signed\"\n";
        std::fs::write(&file, text).expect("written");
        let loaded = crate::config::load(&file).unwrap_or_else(|problems| panic!("{problems}"));
        let clock = Arc::new(SystemClock::new());
        let store = Store::open(&folder.path().join("state"), None, clock.clone()).expect("a new store");
        let instance = Instance::new(Arc::new(loaded.config), store, clock, Arc::new(SystemRandom));
        let set = || {
            let key = crate::oauth::signing_key::SigningKey::generate().public().to_jwk();
            KeySet::read(serde_json::json!({ "keys": [key] }).to_string().as_bytes()).expect("a set")
        };
        let url = Url::parse("https://client.example/jwks").expect("a URL");
        instance.key_sets.entry(&url, true).keep(set(), instance.clock.now(), instance.clock.now());
        for keys in [Keys::Inline(set()), Keys::Url { url, guarded: true }] {
            for outcome in [Ok("found"), Err("not among them")] {
                let times = std::sync::atomic::AtomicUsize::new(0);
                let find = |_: &KeySet| {
                    times.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    outcome
                };
                assert_eq!(instance.key_sets.find(&instance, &sample::app(), &keys, find).await, Ok(outcome));
                assert_eq!(times.into_inner(), 1, "{outcome:?}");
            }
        }
    }

    #[test]
    fn k4_what_one_who_may_reach_private_addresses_found_or_did_not_is_nothing_to_one_who_may_not() {
        let (sets, clock) = (KeySets::default(), SystemClock::new());
        let url = Url::parse("https://client.example/jwks").expect("a URL");
        let key = crate::oauth::signing_key::SigningKey::generate().public().to_jwk();
        let set = KeySet::read(serde_json::json!({ "keys": [key] }).to_string().as_bytes()).expect("a set");
        sets.entry(&url, false).keep(set, clock.now(), clock.now());
        for (guarded, is_known) in [(false, true), (true, false)] {
            let entry = sets.entry(&url, guarded);
            assert_eq!((entry.set(&clock.now(), KEPT).is_some(), entry.may_look(&clock.now())), (is_known, !is_known), "{guarded}");
        }
    }

    #[test]
    fn k4_of_too_many_sets_the_least_used_go_and_not_all() {
        let sets = KeySets::default();
        let url = |number: usize| Url::parse(&format!("https://client.example/{number}/jwks")).expect("a URL");
        let used = sets.entry(&url(0), true);
        for number in 1..=2 * MOST_SETS {
            sets.entry(&url(number), true);
            assert!(Arc::ptr_eq(&used, &sets.entry(&url(0), true)), "after {number} others");
        }
        assert_eq!(sets.sets.lock().expect("nobody panicked").len(), MOST_SETS);
    }
}
