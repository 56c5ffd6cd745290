//! A link as calls see it: where the peer is and which credential a call carries. While the token is fresh this is one atomic load.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::HeaderValue;
use secrecy::ExposeSecret;
use tokio::sync::{Notify, watch};

use super::prover::Prover;
use crate::clock::{Clock, Moment, Timestamp};
use crate::id::Id;
use crate::instance::Instance;
use crate::net::client::Client;
use crate::net::life::Life;
use crate::net::path::Upstream;
use crate::outbound::answer;
use crate::outbound::client;
use crate::outbound::link::{Facts, Holding, Standing};
use crate::outbound::peer::Auth;
use crate::outbound::plan::{self, Validity};
use crate::outbound::turn::Pause;

/// The link to one peer. One actor changes it ([`super::actor`]); anybody may look.
#[derive(Debug)]
pub struct Link {
    id: Id,
    instance: Arc<Instance>,
    shown: ArcSwap<Snapshot>,
    /// The newest generation that the peer refused with a 401.
    refused: AtomicU64,
    /// When such a refusal was last a reason to renew the token, and of which generation it was.
    heeded: Mutex<Option<(Moment, u64)>>,
    waiting: AtomicUsize,
    /// Wakes the actor: a call has no usable token.
    need: Notify,
    /// Wakes who waits: something was shown.
    changed: watch::Sender<()>,
    /// Ended, and replaced, when the link is taken away.
    life: ArcSwap<Life>,
}

/// Where a peer's calls go.
#[derive(Debug)]
pub struct Target {
    /// Whose peer it is.
    pub tenant: String,
    /// Its name.
    pub name: String,
    /// What calls' paths are appended to.
    pub upstream: Upstream,
    /// What they are appended to by the peer's own account, which a proof has to name: an operator may have said to reach it another way.
    pub named: Upstream,
    /// It is a p2pid's gateway, which marks its own refusals: any other answer is its application's.
    pub is_gateway: bool,
    /// Connections made under this peer's trust.
    pub client: Client,
    /// Calls are held back until then.
    pub maintenance_until: Option<Timestamp>,
}

/// What a call carries, and where to: looked at as one, so that nothing meant for one place goes to another while a peer moves.
#[derive(Clone, Debug)]
pub struct Credential {
    /// Where it may be sent.
    pub target: Arc<Target>,
    /// The value of `Authorization`, marked as secret.
    pub authorization: HeaderValue,
    /// What makes the proof that goes with it, where the token is bound to a key.
    pub prover: Option<Arc<Prover>>,
    /// Which token it is: [`Link::refused`] takes it back.
    pub generation: u64,
}

/// Why a call cannot be carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkRefusal {
    /// The peer is not linked.
    #[error("the peer is not linked")]
    NotLinked,
    /// It was, and has to be linked again.
    #[error("the peer has to be linked again")]
    RelinkRequired,
    /// Calls are held back.
    #[error("calls to the peer are held back")]
    Maintenance {
        /// How long still.
        retry_after: Duration,
    },
    /// The token has run out and could not be renewed in time.
    #[error("the peer's token could not be renewed")]
    RefreshFailed {
        /// When it is tried again.
        retry_after: Duration,
    },
    /// Too many calls wait for this peer.
    #[error("too many calls wait for the peer")]
    Overloaded,
}

/// What everybody sees of a link, until the actor shows the next one.
#[derive(Clone, Debug)]
pub(super) struct Snapshot {
    /// What the rows say.
    pub(super) facts: Arc<Facts>,
    /// Where calls go.
    target: Arc<Target>,
    /// What calls carry.
    carried: Option<Carried>,
    /// How many attempts have failed since the start: who waits learns from it that one did meanwhile.
    pub(super) failed_attempts: u64,
    /// When the next attempt is made by itself, after one that failed.
    pub(super) pause: Option<Pause>,
}

#[derive(Clone, Debug)]
struct Carried {
    authorization: HeaderValue,
    prover: Option<Arc<Prover>>,
    generation: u64,
    /// `None` for what does not run out.
    validity: Option<Validity>,
}

impl Snapshot {
    /// What is to be shown of `facts`; `target` is theirs.
    pub(super) fn new(instance: &Instance, facts: Arc<Facts>, target: Target, failed_attempts: u64, pause: Option<Pause>) -> Self {
        let generation = facts.peer.generation;
        let carried = match (&facts.peer.auth, &facts.holding) {
            (Auth::Basic(user), _) => {
                let authorization = client::basic(&user.name, user.password.expose_secret());
                Some(Carried { authorization, prover: None, generation, validity: None })
            }
            (Auth::OAuth { .. }, Holding::Tokens(held)) => {
                let key = held.key.as_ref().filter(|_| held.is_bound);
                let base = facts.peer.base(facts.metadata.as_ref());
                let prover = key.map(|key| Arc::new(Prover::new(instance, key, &held.access, &base)));
                let authorization = answer::authorization(&held.access, held.is_bound);
                Some(Carried { authorization, prover, generation, validity: Some(held.validity) })
            }
            _ => None,
        };
        Self { facts, target: Arc::new(target), carried, failed_attempts, pause }
    }

    /// The same, but that no call carries anything.
    pub(super) fn without_credential(&self) -> Self {
        Self { carried: None, ..self.clone() }
    }

    /// The same, but that calls wait for the attempt under way.
    pub(super) fn without_pause(&self) -> Self {
        Self { pause: None, ..self.clone() }
    }
}

impl Link {
    pub(super) fn new(id: Id, instance: Arc<Instance>, shown: Snapshot) -> Self {
        Self {
            id,
            instance,
            shown: ArcSwap::from_pointee(shown),
            refused: AtomicU64::new(0),
            heeded: Mutex::default(),
            waiting: AtomicUsize::new(0),
            need: Notify::new(),
            changed: watch::Sender::new(()),
            life: ArcSwap::from_pointee(Life::default()),
        }
    }

    /// The peer's identity.
    pub fn id(&self) -> Id {
        self.id
    }

    /// Where its calls go.
    pub fn target(&self) -> Arc<Target> {
        Arc::clone(&self.shown.load().target)
    }

    /// What is known of it now. That the peer refuses the token is known from the first call on that it refused, whatever the actor does meanwhile.
    pub fn facts(&self) -> Arc<Facts> {
        let facts = Arc::clone(&self.shown.load().facts);
        let is_refused = facts.held().is_some() && facts.peer.generation <= self.refused.load(Ordering::Relaxed);
        if facts.is_refused == is_refused { facts } else { Arc::new(Facts { is_refused, ..Facts::clone(&facts) }) }
    }

    /// What a call carries, while the token is fresh: no waiting, no lock, no database.
    pub fn credential_now(&self) -> Option<Credential> {
        let shown = self.shown.load();
        let carried = shown.carried.as_ref()?;
        let now = self.clock().now();
        if shown.facts.peer.maintenance_at(now.wall).is_some() {
            return None;
        }
        if let Some(validity) = &carried.validity
            && (carried.generation <= self.refused.load(Ordering::Relaxed) || !validity.is_usable(&now))
        {
            return None;
        }
        let (target, authorization) = (Arc::clone(&shown.target), carried.authorization.clone());
        Some(Credential { target, authorization, prover: carried.prover.clone(), generation: carried.generation })
    }

    /// What a call carries; when the token has run out, waits for the one refresh, at most `wait`.
    pub async fn credential(&self, wait: Duration) -> Result<Credential, LinkRefusal> {
        match self.credential_now() {
            Some(credential) => Ok(credential),
            None => Box::pin(self.awaited(wait)).await,
        }
    }

    /// The peer answered 401 `invalid_token` to the credential of `generation`: when that is still the current one it is renewed, else the
    /// newer one is given, at once. A token that such a renewal brought is not renewed so again within min(30 s, 25 % of life).
    pub async fn refused(&self, generation: u64, wait: Duration) -> Result<Credential, LinkRefusal> {
        self.heed(generation);
        self.credential(wait).await
    }

    /// Takes the current token for refused, unless it came in the place of one that was not long ago.
    fn heed(&self, generation: u64) {
        let shown = self.shown.load();
        let current = shown.carried.as_ref().filter(|carried| carried.generation == generation);
        let Some(validity) = current.and_then(|carried| carried.validity) else { return };
        let now = self.clock().now();
        let mut heeded = self.heeded.lock().expect("nothing panics while it is held");
        if plan::is_heeded(*heeded, generation, validity.life, &now) {
            *heeded = Some((now, generation));
            self.refused.fetch_max(generation, Ordering::Relaxed);
        }
    }

    /// What calls under way rest on: it ends when the link is taken away (unlinked, deleted).
    pub fn life(&self) -> Arc<Life> {
        self.life.load_full()
    }

    async fn awaited(&self, wait: Duration) -> Result<Credential, LinkRefusal> {
        let limit = self.instance.config().limits.queue_per_peer;
        let _place = Place::take(&self.waiting, limit).ok_or(LinkRefusal::Overloaded)?;
        let began = self.clock().now();
        let failed_before = self.shown.load().failed_attempts;
        let mut changed = self.changed.subscribe();
        loop {
            if let Some(credential) = self.credential_now() {
                return Ok(credential);
            }
            let now = self.clock().now();
            let left = wait.saturating_sub(now.age_of(&began));
            {
                let shown = self.shown.load();
                if let Some(standing) = shown.facts.refusal(&now) {
                    return Err(standing.into());
                }
                let pause = shown.pause.map_or(Duration::ZERO, |pause| pause.left(&now));
                if shown.failed_attempts != failed_before || pause > left || left.is_zero() {
                    return Err(LinkRefusal::RefreshFailed { retry_after: pause.max(SHORTEST_RETRY) });
                }
            }
            self.need.notify_one();
            tokio::select! {
                _ = changed.changed() => {}
                () = self.clock().sleep(left) => {}
            }
        }
    }

    fn clock(&self) -> &dyn Clock {
        self.instance.clock.as_ref()
    }

    /// Shows what is known from here on, and wakes who waits for it.
    pub(super) fn show(&self, shown: Snapshot) {
        self.shown.store(Arc::new(shown));
        self.changed.send_replace(());
    }

    /// What is shown now.
    pub(super) fn shown(&self) -> Arc<Snapshot> {
        self.shown.load_full()
    }

    /// Ends what rests on the link.
    pub(super) fn end(&self) {
        self.life.swap(Arc::default()).end();
    }

    /// Completes when a call needs a token.
    pub(super) async fn needed(&self) {
        self.need.notified().await;
    }

    /// Whether the peer refused the token that is held now.
    pub(super) fn is_refused(&self) -> bool {
        self.shown.load().facts.peer.generation <= self.refused.load(Ordering::Relaxed)
    }

    /// Whether a call waits.
    pub(super) fn is_awaited(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }
}

/// What `Retry-After` says at least.
const SHORTEST_RETRY: Duration = Duration::from_secs(1);

/// What `Retry-After` says at most: maintenance is over sooner than planned, too.
const LONGEST_RETRY: Duration = Duration::from_secs(3_600);

impl From<Standing> for LinkRefusal {
    fn from(standing: Standing) -> Self {
        match standing {
            Standing::NotLinked => Self::NotLinked,
            Standing::RelinkRequired => Self::RelinkRequired,
            Standing::Maintenance { ends_in } => Self::Maintenance { retry_after: ends_in.clamp(SHORTEST_RETRY, LONGEST_RETRY) },
        }
    }
}

/// One of the places to wait in.
struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    fn take(waiting: &'a AtomicUsize, limit: usize) -> Option<Self> {
        let place = Self(waiting);
        // Counted first: two at once cannot both take the last one. Dropping it gives it back either way.
        (waiting.fetch_add(1, Ordering::Relaxed) < limit).then_some(place)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
