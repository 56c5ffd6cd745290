//! The access tokens in use, in memory: a call whose token is here touches no database and waits for nobody.
//!
//! Filled on demand and bounded. A fill notes the revocation counter before it reads; a revocation raises the counter after its commit and
//! before it is answered; a fill that finds another counter at its end is used for nothing and read again. What a revocation ends, it
//! ends through the grant's [`Life`], which all tokens of the grant and all streams opened with them share.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use quick_cache::sync::Cache;

use super::access_token::Found;
use super::{Store, StoreError, Transaction, access_token, app_token, grant, ib_app};
use crate::clock::{Clock, Timestamp};
use crate::id::Id;
use crate::inbound::grant::is_in_its_time;
use crate::inbound::permit::Bearer;
use crate::net::headers::Identity;
use crate::net::lane::Lane;
use crate::net::life::{Bounds, Life};
use crate::oauth::scope::Scope;
use crate::oauth::token::{Kind, digest_if};
use crate::secret::Digest;

/// Tokens in memory at most; the least used go first.
const MOST: usize = 16 * 1024;

/// The access tokens in use.
#[derive(Debug)]
pub struct TokenTable {
    store: Store,
    clock: Arc<dyn Clock>,
    tokens: Cache<Digest, Arc<LiveToken>>,
    /// Raised by every revocation.
    revocations: AtomicU64,
    /// By grant, or by token where there is none; each stays until its last use is written down.
    holds: Mutex<HashMap<Id, Arc<Hold>>>,
    /// By app.
    lanes: Mutex<HashMap<(Id, Calls), Arc<Lane>>>,
    /// Two who look at apps one after the other make known what they read in the same order.
    order: tokio::sync::Mutex<()>,
}

/// Which calls of an app share a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Calls {
    /// All of them.
    All,
    /// Those with tokens that stand alone: together they are what a grant is.
    Alone,
}

/// An access token that is good, but for its expiry.
#[derive(Debug)]
pub struct LiveToken {
    bearer: Bearer,
    issued_at: Timestamp,
    generation: u32,
    hold: Arc<Hold>,
    /// The headers that tell the application who calls.
    pub identity: Identity,
    /// Its scope, for the streams that are opened with it.
    pub granted: Arc<Scope>,
    /// Ends when the grant is ended; open streams rest on it.
    pub life: Arc<Life>,
    /// The calls that are under way with the grant, or with all tokens of the app that stand alone.
    pub lane: Arc<Lane>,
    /// The calls of the app that are under way.
    pub app_lane: Arc<Lane>,
}

/// What all tokens of a grant share.
#[derive(Debug)]
struct Hold {
    life: Arc<Life>,
    lane: Arc<Lane>,
    app_lane: Arc<Lane>,
    /// Tokens of earlier generations have been withdrawn.
    oldest_generation: AtomicU32,
    /// The app, of a token that stands alone.
    alone_of: Option<Id>,
    /// The app.
    app: Id,
    /// When one of them was last used, in milliseconds.
    last_used: AtomicI64,
    /// As far as it was written down.
    written: AtomicI64,
}

impl Hold {
    fn of(app: Id, alone_of: Option<Id>, lane: Arc<Lane>, app_lane: Arc<Lane>) -> Self {
        let (life, oldest_generation) = (Arc::default(), AtomicU32::default());
        Self { life, lane, app_lane, oldest_generation, alone_of, app, last_used: AtomicI64::default(), written: AtomicI64::default() }
    }

    /// Whether something has yet to be written down, or a token or a stream rests on it. To be asked under the lock, under which nothing takes up
    /// a hold that only the table has.
    fn is_needed(self: &Arc<Self>) -> bool {
        let is_written = self.alone_of.is_some() || self.written.load(Ordering::Relaxed) == self.last_used.load(Ordering::Relaxed);
        let is_rested_on = Arc::strong_count(self) > 1 || Arc::strong_count(&self.life) > 1;
        !is_written || !self.life.is_ended() && is_rested_on
    }
}

impl Deref for LiveToken {
    type Target = Bearer;

    fn deref(&self) -> &Bearer {
        &self.bearer
    }
}

impl TokenTable {
    /// An empty table over `store`.
    pub fn new(store: Store, clock: Arc<dyn Clock>) -> Self {
        let (tokens, revocations) = (Cache::new(MOST), AtomicU64::new(0));
        Self { store, clock, tokens, revocations, holds: Mutex::default(), lanes: Mutex::default(), order: tokio::sync::Mutex::default() }
    }

    /// The token when it is in memory and good: no wait, no database, no lock that is contended.
    pub fn cached(&self, token: &str) -> Option<Arc<LiveToken>> {
        self.cached_by(digest_if(Kind::Access, token)?)
    }

    /// The token when it is good. Garbage is refused by its checksum, without a look at the database. The first presentation of a pair is
    /// durable before this answers: from then on its predecessor may not get another pair (`inbound::refresh`, rule 3).
    pub async fn present(&self, token: &str) -> Result<Option<Arc<LiveToken>>, StoreError> {
        let Some(digest) = digest_if(Kind::Access, token) else { return Ok(None) };
        if let Some(live) = self.cached_by(digest) {
            return Ok(Some(live));
        }
        loop {
            let revocations = self.revocations.load(Ordering::Acquire);
            let Some(found) = self.find(digest).await? else { return Ok(None) };
            if let Some(live) = self.keep(digest, found, revocations) {
                return Ok(Some(live));
            }
        }
    }

    /// Ends a grant here: its tokens are refused and its streams end. Called after the commit that ended it, before that is answered.
    pub fn end(&self, grant: Id) {
        self.revoke(|holds| {
            if let Some(hold) = holds.get(&grant) {
                hold.life.end();
            }
        });
    }

    /// Ends a token that stands alone, and the streams that were opened with it. Called like [`TokenTable::end`].
    pub fn end_token(&self, digest: Digest) {
        self.end(alone(digest));
        self.tokens.remove(&digest);
    }

    /// Ends an app here: all its tokens are refused, and the streams that were opened with them end. Called like [`TokenTable::end`].
    pub fn end_app(&self, app: Id) {
        self.revoke(|holds| holds.values().filter(|hold| hold.app == app).for_each(|hold| hold.life.end()));
    }

    /// Refuses a grant's tokens of generations before `generation`; its streams go on. Called like [`TokenTable::end`].
    pub fn withdraw_before(&self, grant: Id, generation: u32) {
        self.revoke(|holds| {
            if let Some(hold) = holds.get(&grant) {
                hold.oldest_generation.fetch_max(generation, Ordering::AcqRel);
            }
        });
    }

    /// An app was changed: its tokens are read again at their next use, and the streams end that need a scope which it has not any more, or that
    /// were opened with a token that is bound to nothing where its tokens must be bound by now. Called like [`TokenTable::end`].
    pub async fn app_changed(&self, app: Id) {
        self.forget();
        let _in_order = self.order.lock().await;
        match self.store.read(move |connection| ib_app::by_id(connection, app)).await {
            Ok(Some(found)) => {
                let bounds = Arc::new(Bounds { must_be_bound: found.security.is_bound(), scope: found.scope });
                self.holds().values().filter(|hold| hold.app == app).for_each(|hold| hold.life.bound(Arc::clone(&bounds)));
            }
            Ok(None) => self.end_app(app),
            Err(error) => {
                tracing::error!(%error, "an app that was changed cannot be read again; all streams of its peer end");
                self.end_app(app);
            }
        }
    }

    /// Reads every token again at its next use, since what they rest on changed: a person, a role, a realm or an app. Called like [`TokenTable::end`].
    pub fn forget(&self) {
        self.revoke(|_| {});
        self.tokens.clear();
    }

    /// Reads every token again at its next use and ends all streams, since it is unknown what of the last changes is stored: any of them may rest on
    /// what has ended, and whoever is still allowed opens it again.
    pub fn end_streams(&self) {
        self.revoke(|holds| holds.values().for_each(|hold| hold.life.end()));
        self.tokens.clear();
    }

    /// When a token of `grant` was last used here; what is in the database may be older.
    pub fn last_used(&self, grant: Id) -> Option<Timestamp> {
        let hold = self.holds().get(&grant).map(Arc::clone)?;
        Some(Timestamp::from_millis(hold.last_used.load(Ordering::Relaxed)))
    }

    /// Writes down when the grants were last used, and forgets those that have ended or whose tokens have all gone. To be called now and
    /// then.
    pub async fn write_down(&self) -> Result<(), StoreError> {
        let mut used = Vec::new();
        for (grant, hold) in self.holds().iter().filter(|(_, hold)| hold.alone_of.is_none()) {
            let last = hold.last_used.load(Ordering::Relaxed);
            if hold.written.load(Ordering::Relaxed) != last {
                used.push((*grant, last));
            }
        }
        if !used.is_empty() {
            let rows = used.clone();
            let write = move |transaction: &Transaction<'_>| {
                rows.iter().try_for_each(|(id, last)| grant::used(transaction, *id, Timestamp::from_millis(*last)))
            };
            self.store.write(write).await?;
        }
        self.mark_written(&used);
        self.end_streams_of_apps().await?;
        self.holds().retain(|_, hold| hold.is_needed());
        self.lanes().retain(|_, lane| Arc::strong_count(lane) > 1);
        Ok(())
    }

    fn mark_written(&self, used: &[(Id, i64)]) {
        let holds = self.holds();
        for (grant, last) in used {
            if let Some(hold) = holds.get(grant) {
                hold.written.store(*last, Ordering::Relaxed);
            }
        }
    }

    /// Ends the streams of apps that act for themselves and have had no good token for as long as one lives.
    async fn end_streams_of_apps(&self) -> Result<(), StoreError> {
        let mut apps: Vec<Id> = self.holds().values().filter(|hold| !hold.life.is_ended()).filter_map(|hold| hold.alone_of).collect();
        apps.sort_unstable();
        apps.dedup();
        for app in apps {
            let end = self.store.read(move |connection| app_token::streams_end(connection, app)).await?;
            if end.is_none_or(|end| end <= self.clock.now().wall) {
                self.holds().values().filter(|hold| hold.alone_of == Some(app)).for_each(|hold| hold.life.end());
            }
        }
        Ok(())
    }

    fn cached_by(&self, digest: Digest) -> Option<Arc<LiveToken>> {
        let live = self.tokens.get(&digest)?;
        let now = self.clock.now().wall;
        let is_withdrawn = live.generation < live.hold.oldest_generation.load(Ordering::Acquire);
        if live.life.is_ended() || is_withdrawn || !is_in_its_time(live.issued_at, live.expires_at, now) {
            self.tokens.remove(&digest);
            return None;
        }
        // To the second, so that the cores do not fight over the memory of a busy grant.
        if now.millis().abs_diff(live.hold.last_used.load(Ordering::Relaxed)) >= 1_000 {
            live.hold.last_used.store(now.millis(), Ordering::Relaxed);
        }
        Some(live)
    }

    /// The good token with that digest, whose first presentation is written down.
    async fn find(&self, digest: Digest) -> Result<Option<Found>, StoreError> {
        let now = self.clock.now().wall;
        let found = self.store.read(move |connection| access_token::find(connection, digest)).await?;
        match found.filter(|found| found.is_live(now)) {
            Some(found) if found.is_first_presentation => self.find_arriving(digest).await,
            found => Ok(found),
        }
    }

    async fn find_arriving(&self, digest: Digest) -> Result<Option<Found>, StoreError> {
        self.store.write(move |transaction| access_token::present(transaction, digest)).await
    }

    /// Puts a token that was found into the table, unless something was revoked since the counter stood at `revocations`.
    fn keep(&self, digest: Digest, found: Found, revocations: u64) -> Option<Arc<LiveToken>> {
        let mut holds = self.holds();
        // Revocations raise the counter and end holds under this lock: a token is seen here, or its hold is found there.
        if self.revocations.load(Ordering::Acquire) != revocations {
            return None;
        }
        let (key, alone_of) = match found.bearer.grant {
            Some(grant) => (grant, None),
            None => (alone(digest), Some(found.bearer.app)),
        };
        let living = holds.get(&key).filter(|hold| !hold.life.is_ended());
        let hold = living.map(Arc::clone).unwrap_or_else(|| {
            let (app, mut lanes) = (found.bearer.app, self.lanes());
            let mut lane_of = |calls| Arc::clone(lanes.entry((app, calls)).or_default());
            let lane = alone_of.map(|_| lane_of(Calls::Alone)).unwrap_or_default();
            Arc::new(Hold::of(app, alone_of, lane, lane_of(Calls::All)))
        });
        holds.insert(key, Arc::clone(&hold));
        hold.last_used.store(self.clock.now().wall.millis(), Ordering::Relaxed);
        let live = Arc::new(LiveToken {
            identity: Identity::new(&found.bearer),
            granted: Arc::new(found.bearer.scope.clone()),
            bearer: found.bearer,
            issued_at: found.issued_at,
            generation: found.generation,
            life: Arc::clone(&hold.life),
            lane: Arc::clone(&hold.lane),
            app_lane: Arc::clone(&hold.app_lane),
            hold,
        });
        self.tokens.insert(digest, Arc::clone(&live));
        Some(live)
    }

    fn revoke(&self, ends: impl FnOnce(&HashMap<Id, Arc<Hold>>)) {
        let holds = self.holds();
        self.revocations.fetch_add(1, Ordering::AcqRel);
        ends(&holds);
    }

    /// May be locked under the lock of `holds`, never the other way round.
    fn lanes(&self) -> MutexGuard<'_, HashMap<(Id, Calls), Arc<Lane>>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn holds(&self) -> MutexGuard<'_, HashMap<Id, Arc<Hold>>> {
        self.holds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Under which a token without a grant has its hold.
fn alone(digest: Digest) -> Id {
    let [first, ..] = digest.as_bytes().as_chunks::<16>().0 else { unreachable!("a digest has two halves") };
    Id::from_bytes(*first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inbound::grant::EndReason;
    use crate::secret::ExposeSecret;
    use crate::store::ib_app;
    use crate::store::sample::{HOUR, StandingClock, granted, linked};

    struct World {
        _directory: tempfile::TempDir,
        clock: Arc<StandingClock>,
        store: Store,
        table: TokenTable,
        access: String,
    }

    impl World {
        async fn new() -> Self {
            let directory = tempfile::tempdir().expect("a temporary directory");
            let clock = StandingClock::new();
            let store = Store::open(directory.path(), None, clock.clone()).expect("a new store");
            let access = linked(&store).await.access.expose_secret().to_owned();
            let table = TokenTable::new(store.clone(), clock.clone());
            Self { _directory: directory, clock, store, table, access }
        }

        async fn present(&self) -> Option<Arc<LiveToken>> {
            self.table.present(&self.access).await.expect("read")
        }

        fn grant(&self) -> Id {
            granted(Timestamp::default()).id
        }
    }

    #[tokio::test]
    async fn a_token_that_is_in_the_table_touches_no_database() {
        let world = World::new().await;
        assert!(world.table.cached(&world.access).is_none());
        let live = world.present().await.expect("a live token");
        assert_eq!(
            (live.client_id.as_str(), live.subject.as_str(), live.scope.to_string()),
            ("client-one", "ops@two.example", "a b".into())
        );
        let statements = world.store.statements();
        for _ in 0..1_000 {
            assert!(world.table.cached(&world.access).is_some() && world.present().await.is_some());
        }
        assert_eq!(world.store.statements(), statements);
    }

    #[tokio::test]
    async fn v3_a_stream_ends_with_its_grant_though_its_token_is_long_forgotten() {
        let world = World::new().await;
        let stream = Arc::clone(&world.present().await.expect("a live token").life);
        world.clock.pass(HOUR);
        assert!(world.present().await.is_none());
        for _ in 0..2 {
            world.table.write_down().await.expect("written");
        }
        world.table.end(world.grant());
        assert!(stream.is_ended());
    }

    #[tokio::test]
    async fn v3_a_token_that_stands_alone_ends_alone_with_its_streams() {
        let world = World::new().await;
        let app = crate::store::sample::app().id;
        let mut tokens = Vec::new();
        for _ in 0..2 {
            let fresh = crate::store::sample::fresh();
            let access = fresh.access.expose_secret().to_owned();
            let judge = move |transaction: &Transaction<'_>| {
                let now = transaction.now().wall;
                let token = crate::inbound::grant::NewAccess::of(&fresh, None, 0, "a".parse().expect("a scope"), HOUR, now);
                app_token::insert(transaction, app, &token)
            };
            world.store.write(judge).await.expect("written");
            tokens.push((world.table.present(&access).await.expect("read").expect("a live token"), access));
        }
        let [(first, access), (second, other)] = &tokens[..] else { panic!("two tokens") };
        let digest = Digest::of(access);
        world.store.write(move |transaction| app_token::end(transaction, digest)).await.expect("written");
        world.table.end_token(digest);
        assert!(first.life.is_ended() && world.table.present(access).await.expect("read").is_none());
        assert!(!second.life.is_ended() && world.table.present(other).await.expect("read").is_some());
        assert!(Arc::ptr_eq(&first.lane, &second.lane), "an app has no more calls under way for having more tokens");
        let of_grant = world.present().await.expect("a live token");
        assert!(!Arc::ptr_eq(&first.lane, &of_grant.lane) && Arc::ptr_eq(&first.app_lane, &of_grant.app_lane), "nor for having grants");

        // Its streams go on for as long again as its last good token lived.
        world.clock.pass(HOUR * 3 / 2);
        world.table.write_down().await.expect("written");
        assert!(!second.life.is_ended() && world.table.present(other).await.expect("read").is_none());
        world.clock.pass(HOUR / 2);
        world.table.write_down().await.expect("written");
        assert!(second.life.is_ended());
    }

    #[tokio::test]
    async fn garbage_and_other_kinds_of_token_touch_no_database() {
        let world = World::new().await;
        let statements = world.store.statements();
        let refresh = crate::oauth::token::mint(Kind::Refresh, &crate::system::SystemRandom);
        for garbage in ["", "x", "p2pa_garbage", refresh.expose_secret(), &world.access[1..]] {
            assert!(world.table.present(garbage).await.expect("read").is_none());
        }
        assert_eq!(world.store.statements(), statements);
    }

    #[tokio::test]
    async fn v3_an_ended_grant_ends_its_tokens_and_the_streams_that_rest_on_them() {
        let world = World::new().await;
        let live = world.present().await.expect("a live token");
        let grant = world.grant();
        let end = move |transaction: &Transaction<'_>| grant::end(transaction, grant, EndReason::RevokedByClient);
        assert!(world.store.write(end).await.expect("written"));
        world.table.end(grant);
        live.life.over(None).await;
        assert!(world.table.cached(&world.access).is_none() && world.present().await.is_none());
    }

    #[tokio::test]
    async fn a_token_leaves_the_table_when_its_time_is_over() {
        let world = World::new().await;
        assert!(world.present().await.is_some());
        world.clock.pass(HOUR);
        assert!(world.table.cached(&world.access).is_none() && world.present().await.is_none());
    }

    #[tokio::test]
    async fn a_fill_that_a_revocation_overtook_is_used_for_nothing() {
        let world = World::new().await;
        let digest = Digest::of(&world.access);
        let found = world.table.find(digest).await.expect("read").expect("a live token");
        let revocations = world.table.revocations.load(Ordering::Acquire);
        world.table.end(world.grant());
        assert!(world.table.keep(digest, found, revocations).is_none());
        assert!(world.table.cached(&world.access).is_none());
    }

    #[tokio::test]
    async fn earlier_generations_are_withdrawn_while_streams_go_on() {
        let world = World::new().await;
        let live = world.present().await.expect("a live token");
        world.table.withdraw_before(world.grant(), 2);
        assert!(world.table.cached(&world.access).is_none() && !live.life.is_ended());
    }

    #[tokio::test]
    async fn a_scope_that_is_taken_from_an_app_is_gone_from_its_tokens() {
        let world = World::new().await;
        assert!(world.present().await.expect("a live token").scope.contains("b"));
        let narrowed = crate::inbound::ib_app::IbApp { scope: "a".parse().expect("a scope"), ..crate::store::sample::app() };
        world.store.write(move |transaction| ib_app::update(transaction, &narrowed)).await.expect("written");
        world.table.forget();
        assert_eq!(world.present().await.expect("a live token").scope.to_string(), "a");
    }

    #[tokio::test]
    async fn the_last_use_is_known_at_once_and_written_down_later() {
        let world = World::new().await;
        drop(world.present().await);
        world.clock.pass(HOUR / 2);
        drop(world.present().await);
        let now = world.clock.now().wall;
        assert_eq!(world.table.last_used(world.grant()), Some(now));
        world.table.write_down().await.expect("written");
        let id = world.grant();
        let shown = world.store.read(move |connection| grant::by_id(connection, "default", id)).await.expect("read").expect("there");
        assert_eq!(shown.last_used_at, Some(now));
    }

    #[tokio::test]
    async fn the_last_use_of_a_grant_that_ended_is_written_down() {
        let world = World::new().await;
        world.clock.pass(HOUR / 2);
        drop(world.present().await);
        let (now, id) = (world.clock.now().wall, world.grant());
        let end = move |transaction: &Transaction<'_>| grant::end(transaction, id, EndReason::RevokedByClient);
        assert!(world.store.write(end).await.expect("written"));
        world.table.end(id);
        // The table looks at a token once more and lets go of it.
        assert!(world.table.cached(&world.access).is_none());
        world.clock.pass(HOUR / 2);
        assert_eq!(world.table.last_used(id), Some(now));
        world.table.write_down().await.expect("written");
        let shown = world.store.read(move |connection| grant::by_id(connection, "default", id)).await.expect("read").expect("there");
        assert_eq!(shown.last_used_at, Some(now));
        assert_eq!(world.table.last_used(id), None, "nothing is kept of it any more");
    }

    #[tokio::test]
    async fn grants_whose_tokens_have_gone_are_forgotten_and_those_in_use_are_not() {
        let world = World::new().await;
        let live = world.present().await.expect("a live token");
        world.table.write_down().await.expect("written");
        assert!(world.table.last_used(world.grant()).is_some());
        world.table.forget();
        world.table.write_down().await.expect("written");
        assert!(world.table.last_used(world.grant()).is_some(), "a stream rests on it");
        drop(live);
        world.table.write_down().await.expect("written");
        assert_eq!(world.table.last_used(world.grant()), None);
    }
}
