//! The actor of one link: it alone decides when the peer's token is renewed, and it alone shows what has come of it.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::clients::PeerClients;
use super::flight::{self, Landing, Outcome, Plane};
use super::link::{Link, Snapshot, Target};
use super::skew::Skews;
use super::wire::{self, ServerCalls};
use crate::audit::Action;
use crate::clock::Moment;
use crate::id::Id;
use crate::instance::Instance;
use crate::net::path::Upstream;
use crate::observe::metrics::PeerMetrics;
use crate::outbound::attempt::{Trouble, TroubleKind};
use crate::outbound::client::Client;
use crate::outbound::link::{Ending, Facts, State};
use crate::outbound::plan::{self, Jitter};
use crate::outbound::turn::{self, Next, Pause, Situation};
use crate::secret::SecretString;
use crate::store::{self, StoreError};

/// The clock is looked at this often at least: a suspended machine and a stepped clock are noticed by then.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// The shortest and the longest wait before rows that could not be read are read again.
const READ_AGAIN: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// What an actor is told.
#[derive(Debug)]
pub(super) enum Command {
    /// Rows changed: read them again, and answer when what they say is shown.
    Reread(oneshot::Sender<()>),
    /// Renew the token now, whatever the plan says, and answer what came of it.
    Refresh(oneshot::Sender<Result<(), NotRefreshed>>),
    /// A request URL was opened, and the server did not take the request, for this reason.
    NotBegun(String),
    /// Clients changed.
    Reconnect {
        /// For calls.
        clients: PeerClients,
        /// For the authorization server.
        server: PeerClients,
    },
}

/// Why the token was not renewed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum NotRefreshed {
    /// There is nothing to renew.
    #[error("there is no token to renew")]
    NothingToRenew,
    /// The attempt failed.
    #[error("{0}")]
    Failed(String),
    /// The peer ended the link.
    #[error("{0}")]
    Ended(String),
    /// The link was changed meanwhile, or the daemon stops.
    #[error("the link was changed meanwhile")]
    Superseded,
}

/// What an actor starts with.
pub(super) struct Start {
    pub(super) link: Arc<Link>,
    pub(super) instance: Arc<Instance>,
    pub(super) clients: PeerClients,
    pub(super) server: PeerClients,
    pub(super) metrics: PeerMetrics,
    pub(super) skews: Arc<Skews>,
    pub(super) stopping: CancellationToken,
    pub(super) flights: TaskTracker,
    /// The first background refresh waits up to this long, so that many peers are not asked at once.
    pub(super) spread: Duration,
}

pub(super) struct Actor {
    link: Arc<Link>,
    instance: Arc<Instance>,
    /// For calls through the link.
    clients: PeerClients,
    /// For its authorization server.
    server: PeerClients,
    metrics: PeerMetrics,
    skews: Arc<Skews>,
    stopping: CancellationToken,
    flights: TaskTracker,
    jitter: Jitter,
    /// Nothing is done in the background before then.
    quiet: Pause,
    /// When the last request for a token was sent.
    sent: Option<Moment>,
    /// When the last attempt ended; before the first one, when this actor began.
    settled: Moment,
    /// Attempts in a row that came to nothing.
    failures: u32,
    flight: Option<BoxFuture<'static, Landing>>,
    /// A call waits for a token.
    is_needed: bool,
    /// An operator changed something since the last attempt took off: where that failed, it may help.
    is_changed: bool,
    /// Who asked for a refresh before the flight took off.
    asked: Vec<oneshot::Sender<Result<(), NotRefreshed>>>,
    /// Who waits for the flight under way.
    aboard: Vec<oneshot::Sender<Result<(), NotRefreshed>>>,
    state: State,
    /// Notice was given that the link ends within so many days.
    noticed: Option<u64>,
    /// The rows were read while a flight was under way: what it brings may be older than what is shown.
    reread_in_flight: bool,
}

impl Actor {
    pub(super) fn new(start: Start) -> Self {
        let Start { link, instance, clients, server, metrics, skews, stopping, flights, spread } = start;
        let jitter = Jitter::of(&link.id());
        let now = instance.clock.now();
        let state = link.facts().status(&now).state;
        let quiet = Pause { since: now, wait: jitter.share_of(spread) };
        let actor = Self {
            link,
            instance,
            clients,
            server,
            metrics,
            skews,
            stopping,
            flights,
            jitter,
            quiet,
            sent: None,
            settled: now,
            failures: 0,
            flight: None,
            is_needed: false,
            is_changed: false,
            asked: Vec::new(),
            aboard: Vec::new(),
            state,
            noticed: None,
            reread_in_flight: false,
        };
        actor.measure(&now);
        actor
    }

    /// Runs until the peer is deleted or the daemon stops. A flight under way then is finished apart.
    pub(super) async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        loop {
            let wait = match self.next() {
                Next::Fly => {
                    self.take_off();
                    LOOK_AGAIN
                }
                Next::Wait(wait) => wait.min(LOOK_AGAIN),
            };
            let (link, clock) = (Arc::clone(&self.link), Arc::clone(&self.instance.clock));
            tokio::select! {
                command = commands.recv() => match command {
                    Some(command) => self.obey(command).await,
                    None => break,
                },
                landing = landed(&mut self.flight) => {
                    self.land(landing);
                    if std::mem::take(&mut self.reread_in_flight) {
                        self.reread(None).await;
                    }
                }
                () = link.needed(), if self.flight.is_none() && !self.is_needed => self.is_needed = true,
                () = clock.sleep(wait) => self.notice(),
                () = self.stopping.cancelled() => break,
            }
        }
    }

    #[cfg(test)]
    pub(super) fn link(&self) -> &Arc<Link> {
        &self.link
    }

    fn now(&self) -> Moment {
        self.instance.clock.now()
    }

    fn next(&self) -> Next {
        let (now, shown) = (self.now(), self.link.shown());
        let situation = Situation {
            is_under_way: self.flight.is_some(),
            is_renewable: shown.facts.is_renewable(),
            is_asked: !self.asked.is_empty(),
            is_changed: self.is_changed,
            is_needed: self.is_needed || self.link.is_awaited(),
            is_refused: self.link.is_refused(),
            held: shown.facts.held().map(|held| (held.validity, held.intent)),
            pause: shown.pause,
            sent: self.sent,
            settled: self.settled,
            quiet: self.quiet,
            jitter: self.jitter,
        };
        turn::judge(&situation, &now)
    }

    fn take_off(&mut self) {
        let facts = self.link.facts();
        let plane = Plane {
            instance: Arc::clone(&self.instance),
            clients: self.server.clone(),
            stopping: self.stopping.clone(),
            failures: self.failures,
            look_again: self.failures > 0 || !self.asked.is_empty(),
        };
        self.aboard.append(&mut self.asked);
        (self.is_needed, self.is_changed) = (false, false);
        self.sent = Some(self.now());
        let shown = self.link.shown();
        if shown.pause.is_some() {
            // Calls may wait for this attempt.
            self.link.show(shown.without_pause());
        }
        // Apart from this task: a flight is finished even if the actor is not there any more.
        let flight = self.flights.spawn(flight::fly(plane, facts));
        self.flight = Some(Box::pin(async move {
            flight.await.unwrap_or_else(|panic| {
                tracing::error!(reason = %panic, "a refresh was not finished");
                let trouble = Trouble { kind: TroubleKind::Store, reason: "a defect in p2pid; the log says more".to_owned() };
                Landing { facts: None, outcome: Outcome::Failed { wait: plan::ASK_AGAIN, reason: "other".to_owned(), trouble }, skew: None }
            })
        }));
    }

    pub(super) fn land(&mut self, landing: Landing) {
        self.flight = None;
        let now = self.now();
        self.settled = now;
        if let Some(skew) = landing.skew {
            self.skews.note(self.link.id(), skew);
        }
        let old = self.link.shown();
        // What an operator did after the flight had settled may be shown already.
        let news = landing.facts.filter(|facts| facts.peer.generation >= old.facts.peer.generation);
        let mut facts = news.map_or_else(|| Arc::clone(&old.facts), Arc::new);
        let mut failed_attempts = old.failed_attempts;
        let mut pause = None;
        let answer = match landing.outcome {
            Outcome::Renewed => {
                self.failures = 0;
                self.metrics.refreshed(now.wall);
                tracing::info!(tenant = facts.peer.tenant, peer = facts.peer.name, generation = facts.peer.generation, "token renewed");
                confirm(&self.instance, &self.server, &facts);
                Ok(())
            }
            Outcome::Failed { wait, reason, trouble } => {
                self.failures = self.failures.saturating_add(1);
                failed_attempts += 1;
                pause = Some(Pause { since: now, wait });
                self.metrics.refresh_failed(&reason);
                tracing::debug!(tenant = facts.peer.tenant, peer = facts.peer.name, reason = trouble.reason, "token not renewed");
                let words = trouble.reason.clone();
                if facts.held().is_none() {
                    let since = facts.trouble.as_ref().map_or(now.wall, |(_, since)| *since);
                    facts = Arc::new(Facts { trouble: Some((trouble, since)), ..Facts::clone(&facts) });
                }
                Err(NotRefreshed::Failed(words))
            }
            Outcome::Ended => {
                self.failures = 0;
                failed_attempts += 1;
                self.metrics.refresh_failed("invalid_grant");
                Err(NotRefreshed::Ended(facts.status(&now).reason))
            }
            Outcome::Superseded => Err(NotRefreshed::Superseded),
        };
        self.show(facts, failed_attempts, pause);
        for who in self.aboard.drain(..) {
            // Whoever asked may have gone away.
            let _ = who.send(answer.clone());
        }
    }

    pub(super) async fn obey(&mut self, command: Command) {
        match command {
            Command::Reread(done) => self.reread(Some(done)).await,
            Command::Refresh(answer) if self.link.facts().is_renewable() => self.asked.push(answer),
            Command::Refresh(answer) => {
                let _ = answer.send(Err(NotRefreshed::NothingToRenew));
            }
            Command::NotBegun(reason) => {
                let (shown, now) = (self.link.shown(), self.now());
                let trouble = Some((Trouble { kind: TroubleKind::Refused, reason }, now.wall));
                let facts = Arc::new(Facts { trouble, ..Facts::clone(&shown.facts) });
                self.show(facts, shown.failed_attempts, shown.pause);
            }
            Command::Reconnect { clients, server } => {
                (self.clients, self.server) = (clients, server);
                let shown = self.link.shown();
                self.show(Arc::clone(&shown.facts), shown.failed_attempts, shown.pause);
            }
        }
    }

    /// Takes over what the rows say. While they cannot be read nothing is carried: it may have been given up, or be for another place. `done`
    /// is told once no call goes by what was before.
    async fn reread(&mut self, mut done: Option<oneshot::Sender<()>>) {
        self.reread_in_flight |= self.flight.is_some();
        let mut wait = READ_AGAIN.0;
        let facts = loop {
            match facts_of(&self.instance, self.link.id()).await {
                Ok(facts) => break facts,
                Err(error) => {
                    if wait == READ_AGAIN.0 {
                        let peer = &self.link.facts().peer.name;
                        tracing::error!(peer, reason = %error, "a link cannot be read again; no call is made over it until it is");
                    }
                    self.link.show(self.link.shown().without_credential());
                    let _ = done.take().map(|done| done.send(()));
                    tokio::select! {
                        () = self.instance.clock.sleep(wait) => wait = (wait * 2).min(READ_AGAIN.1),
                        () = self.stopping.cancelled() => return,
                    }
                }
            }
        };
        let Some(facts) = facts else {
            self.link.end();
            let _ = done.map(|done| done.send(()));
            return;
        };
        let old = self.link.shown();
        let is_same_link = old.facts.peer.generation == facts.peer.generation;
        self.is_changed |= is_changed(&old.facts, &facts);
        let pause = old.pause.filter(|_| is_same_link);
        if !is_same_link {
            // What was asked for the link before keeps nothing of this one waiting.
            (self.failures, self.sent) = (0, None);
        }
        let is_given_up = old.facts.held().is_some() && facts.held().is_none();
        if old.facts.peer.name != facts.peer.name {
            self.instance.metrics.forget_peer(&old.facts.peer.tenant, &old.facts.peer.name);
            self.metrics = self.instance.metrics.peer(&facts.peer.tenant, &facts.peer.name);
        }
        self.show(Arc::new(facts), old.failed_attempts, pause);
        if is_given_up {
            // After it is shown: who finds the credential that is given up rests on the life that ends.
            self.link.end();
        }
        let _ = done.map(|done| done.send(()));
    }

    fn show(&mut self, facts: Arc<Facts>, failed_attempts: u64, pause: Option<Pause>) {
        let was_bound = self.link.facts().held().is_some_and(|held| held.is_bound);
        if was_bound && facts.held().is_some_and(|held| !held.is_bound) {
            let dpop = facts.ob_app.as_ref().map_or("", |app| app.dpop.as_str());
            tracing::warn!(
                event = Action::PeerTokensUnbound.as_str(),
                tenant = facts.peer.tenant,
                peer = facts.peer.name,
                dpop,
                next = %format_args!("p2pid peer update {} --dpop require, to take no such token", facts.peer.name),
                "the peer gave a bearer token where the one before was bound to our key"
            );
        }
        let target = target(&facts, &self.clients);
        self.link.show(Snapshot::new(&self.instance, facts, target, failed_attempts, pause));
        if !self.link.facts().is_renewable() {
            // Whoever asked while a flight was out waits for another, which there will not be.
            for who in self.asked.drain(..) {
                let _ = who.send(Err(NotRefreshed::NothingToRenew));
            }
        }
        self.notice();
    }

    /// Says once that a link broke, and once that it is well again; time alone can change its state too.
    fn notice(&mut self) {
        let (now, facts) = (self.now(), self.link.facts());
        let status = facts.status(&now);
        let was = std::mem::replace(&mut self.state, status.state);
        let (tenant, peer) = (facts.peer.tenant.as_str(), facts.peer.name.as_str());
        match (is_bad(was), is_bad(status.state)) {
            _ if was == status.state => {}
            (_, true) => tracing::warn!(tenant, peer, state = status.state.as_str(), reason = status.reason, "a link needs attention"),
            (true, false) if status.state == State::Linked => tracing::info!(tenant, peer, reason = status.reason, "a link is well again"),
            _ => tracing::info!(tenant, peer, state = status.state.as_str(), reason = status.reason, "a link's state changed"),
        }
        self.notice_end(&facts, &now);
        self.measure(&now);
    }

    /// Says once for each threshold that the peer will end the link, with who can allow a new one.
    fn notice_end(&mut self, facts: &Facts, now: &Moment) {
        let ending = facts.ending(now);
        if let Some(Ending { at, within_days }) = ending
            && self.noticed.is_none_or(|noticed| within_days < noticed)
        {
            let linked_as = facts.held().and_then(|held| held.linked_as.as_deref()).unwrap_or("somebody the peer did not name");
            tracing::warn!(
                tenant = facts.peer.tenant,
                peer = facts.peer.name,
                linked_as,
                ends_at = %at,
                next = %format_args!("p2pid peer request {}", facts.peer.name),
                "the peer ends a link within {within_days} days; link again before"
            );
        }
        self.noticed = ending.map(|ending| ending.within_days);
    }

    fn measure(&self, now: &Moment) {
        let facts = self.link.facts();
        self.metrics.state(facts.status(now).state.as_str());
        self.metrics.access_expires(facts.held().map(|held| held.issued_at.plus(held.validity.life)));
    }
}

/// Uses the access token that `facts` hold once at the peer's introspection endpoint, where the peer is a p2pid: that tells it that the
/// tokens have arrived, on an idle link too. Nothing depends on the answer.
pub(super) fn confirm(instance: &Arc<Instance>, clients: &PeerClients, facts: &Facts) {
    let (Some(app), Some(held), Some(metadata)) = (&facts.ob_app, facts.held(), &facts.metadata) else { return };
    let (Some(_), Some(endpoint)) = (&metadata.p2pi_endpoint, metadata.introspection_endpoint.clone()) else { return };
    let us = Client::new(app, &metadata.token_endpoint, Some(metadata));
    let access: SecretString = held.access.clone();
    let issuer = url::Url::parse(&metadata.issuer).ok();
    let client = clients.for_endpoint(app, issuer.as_ref(), &endpoint).clone();
    let peer = facts.peer.name.clone();
    let instance = Arc::clone(instance);
    tokio::spawn(async move {
        let calls = ServerCalls::new(&instance, &client, &endpoint);
        match wire::introspect(&calls, &us, &endpoint, &access, "access_token").await {
            Ok(_) => {}
            Err(reason) => tracing::debug!(peer, reason, "the peer was not told that its tokens arrived"),
        }
    });
}

/// Where calls to the peer of `facts` go.
pub(super) fn target(facts: &Facts, clients: &PeerClients) -> Target {
    let base = facts.peer.base(facts.metadata.as_ref());
    let is_below = |endpoint: &url::Url| endpoint.origin() == base.origin();
    let announced = facts.metadata.as_ref().and_then(|metadata| metadata.p2pi_endpoint.as_ref()?.on_origin());
    // By another address the peer is asked for what it calls its own; what is below its own is called as it is asked for.
    let is_its_own = base.origin() == facts.peer.url.origin();
    let named = announced.filter(|endpoint| !is_its_own && endpoint.origin() == facts.peer.url.origin()).unwrap_or(&base);
    Target {
        named: Upstream::new(named).expect("an endpoint's URL was checked: http or https, with a host"),
        tenant: facts.peer.tenant.clone(),
        name: facts.peer.name.clone(),
        is_gateway: facts.metadata.as_ref().and_then(|metadata| metadata.p2pi_endpoint.as_ref()?.on_origin()).is_some_and(is_below),
        upstream: Upstream::new(&base).expect("a peer's URLs were checked: http or https, with a host"),
        client: clients.for_calls(facts.peer.guarded).clone(),
        maintenance_until: facts.peer.maintenance.map(|maintenance| maintenance.until),
    }
}

async fn facts_of(instance: &Instance, peer: Id) -> Result<Option<Facts>, StoreError> {
    let (seals, epoch) = (instance.store.seals().clone(), instance.store.epoch());
    instance.store.read(move |connection| store::link::facts(connection, &seals, epoch, peer)).await
}

/// Whether an operator changed what an attempt depends on.
fn is_changed(old: &Facts, new: &Facts) -> bool {
    use crate::secret::ExposeSecret;
    let credentials = |facts: &Facts| {
        let app = facts.ob_app.as_ref()?;
        Some((
            app.client_id.clone(),
            app.auth_method,
            app.client_secret.as_ref().map(|secret| secret.expose_secret().to_owned()),
            app.keys.as_ref().map(|keys| keys.current.public().thumbprint()),
            app.scope.clone(),
            app.grant,
        ))
    };
    credentials(old) != credentials(new) || old.peer.trust != new.peer.trust || old.peer.url != new.peer.url
}

const fn is_bad(state: State) -> bool {
    matches!(state, State::Degraded | State::RelinkRequired)
}

/// The landing of the flight under way; pending while there is none.
async fn landed(flight: &mut Option<BoxFuture<'static, Landing>>) -> Landing {
    match flight {
        Some(flight) => flight.as_mut().await,
        None => std::future::pending().await,
    }
}
