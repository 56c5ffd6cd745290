//! The keeper: renews the token of every peer before it runs out, one flight per peer, and gives calls their credentials.
//!
//! Each peer has one actor ([`actor`]), which decides when to renew and shows what is known ([`link`]). An attempt is a flight
//! ([`flight`]): intent written, request sent, answer read, tokens stored, and only then used. What changes a link from outside
//! ([`change`]) is one transaction that raises the peer's generation; a flight that settles on another generation than it began with is
//! not stored, and what it brought is revoked ([`outbox`]).

mod actor;
mod change;
mod clients;
mod flight;
mod link;
mod outbox;
mod prover;
mod skew;
#[cfg(test)]
mod tests;
mod wire;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::id::Id;
use crate::instance::Instance;
use crate::net::client::Client;
use crate::net::trust::TrustError;
use crate::observe::point;
use crate::outbound::client::Client as ServerClient;
use crate::outbound::exchange::{Ask, Reply};
use crate::outbound::handshake::reference;
use crate::outbound::link::Facts;
use crate::outbound::metadata::{Metadata, MetadataProblem};
use crate::outbound::ob_app::ObApp;
use crate::outbound::peer::PeerTrust;
use crate::outbound::revocation::{Delivery, Hint};
use crate::secret::SecretString;
use crate::store::{self, StoreError, handshake, peer};

use actor::{Actor, Command, Start};
use clients::Clients;
use link::Snapshot;
use skew::Skews;

pub use actor::NotRefreshed;
pub use change::{Ended, GivenUp, Installation, end, told};
pub use clients::TrustProblem;
pub use link::{Credential, Link, LinkRefusal, Target};
pub use prover::{Basis, Prover};
pub use wire::NoMetadata;

/// Commands that may wait for one actor.
const WAITING: usize = 64;

/// The first background refreshes of many peers are spread over so long for each of them,
const SPREAD_PER_PEER: Duration = Duration::from_millis(20);

/// and over so long altogether at most.
const LONGEST_SPREAD: Duration = Duration::from_secs(10);

/// What storing a peer's answer may take once it is there.
const LAST_STORE: Duration = Duration::from_secs(5);

/// The links to all peers.
#[derive(Debug)]
pub struct Links {
    instance: Arc<Instance>,
    clients: ArcSwap<Clients>,
    skews: Arc<Skews>,
    /// Tenant, then name: found without allocating.
    by_name: ArcSwap<HashMap<String, HashMap<String, Arc<Link>>>>,
    actors: Mutex<HashMap<Id, Running>>,
    stopping: CancellationToken,
    /// Refreshes under way.
    flights: TaskTracker,
    /// Wakes the outbox.
    filled: Arc<Notify>,
}

#[derive(Debug)]
struct Running {
    link: Arc<Link>,
    commands: mpsc::Sender<Command>,
}

/// The keeper does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The peers cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The authorities of `[trust]` cannot be read.
    #[error(transparent)]
    Trust(#[from] TrustError),
}

/// What came of unlinking a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unlinked {
    /// There was no token.
    NothingHeld,
    /// The peer has revoked it.
    Revoked,
    /// The peer was not asked: it has no endpoint for it, or nobody wanted to.
    NotAsked,
    /// The peer will not revoke it.
    NotRevocable,
    /// The peer could not be asked yet, for this reason; it is asked again for 30 days.
    Waiting(String),
}

impl Links {
    /// Reads every peer and starts to look after its link. No peer is asked anything before this returns.
    pub async fn start(instance: Arc<Instance>) -> Result<Arc<Self>, StartError> {
        let clients = Clients::new(instance.config(), &instance.outgoing)?;
        let links = Arc::new(Self {
            skews: Arc::new(Skews::new(Arc::clone(&instance.metrics))),
            clients: ArcSwap::from_pointee(clients),
            by_name: ArcSwap::default(),
            actors: Mutex::default(),
            stopping: CancellationToken::new(),
            flights: TaskTracker::new(),
            filled: Arc::new(Notify::new()),
            instance,
        });
        let now = links.instance.clock.now().wall;
        links.instance.store.write(move |transaction| handshake::interrupt_all(transaction, now)).await?;
        let (seals, epoch) = (links.instance.store.seals().clone(), links.instance.store.epoch());
        let all: Vec<Facts> = links
            .instance
            .store
            .read(move |connection| {
                let peers = peer::all(connection, &seals)?;
                peers.iter().filter_map(|peer| store::link::facts(connection, &seals, epoch, peer.id).transpose()).collect()
            })
            .await?;
        let spread = SPREAD_PER_PEER.saturating_mul(u32::try_from(all.len()).unwrap_or(u32::MAX)).min(LONGEST_SPREAD);
        for facts in all {
            links.begin(facts, spread);
        }
        links.reindex();
        links.deliver();
        Ok(links)
    }

    /// Stops looking after links, and waits for refreshes under way: a peer has perhaps answered, and what it gave is stored before the
    /// end. One that takes longer than `[limits] token_timeout`, or than `drain`, is presented again after the next start.
    pub async fn stop(&self) {
        self.stopping.cancel();
        self.flights.close();
        let limits = &self.instance.config().limits;
        let longest = limits.token_timeout.min(limits.drain) + LAST_STORE;
        if tokio::time::timeout(longest, self.flights.wait()).await.is_err() {
            tracing::warn!("a refresh is still under way; it is presented again after the next start");
        }
    }

    /// The link to the peer `name` of `tenant`.
    pub fn find(&self, tenant: &str, name: &str) -> Option<Arc<Link>> {
        self.by_name.load().get(tenant)?.get(name).cloned()
    }

    /// Every link.
    pub fn all(&self) -> Vec<Arc<Link>> {
        self.by_name.load().values().flat_map(HashMap::values).cloned().collect()
    }

    /// Begins to look after a peer whose row is new.
    pub async fn added(&self, id: Id) -> Result<(), StoreError> {
        let (seals, epoch) = (self.instance.store.seals().clone(), self.instance.store.epoch());
        if let Some(facts) = self.instance.store.read(move |connection| store::link::facts(connection, &seals, epoch, id)).await? {
            self.begin(facts, Duration::ZERO);
            self.reindex();
            // One who deleted it meanwhile found nothing to stop.
            if self.instance.store.read(move |connection| peer::generation(connection, id)).await?.is_none() {
                self.removed(id);
            }
        }
        Ok(())
    }

    /// Takes over what the rows say of a peer, its name too, and returns when calls see it.
    pub async fn changed(&self, id: Id) {
        let (done, is_done) = oneshot::channel();
        let Some(link) = self.by_id(id) else { return };
        let trusts = |facts: &Facts| (facts.peer.trust.clone(), facts.server_trust());
        let before = trusts(&link.facts());
        if self.tell(id, Command::Reread(done)).await && is_done.await.is_ok() {
            if trusts(&link.facts()) != before {
                self.reconnect(&link).await;
            }
            self.reindex();
        }
    }

    /// Stops looking after a peer whose row is gone; what rests on its link ends.
    pub fn removed(&self, id: Id) {
        let running = self.actors.lock().expect("nothing panics while it is held").remove(&id);
        self.reindex();
        if let Some(running) = running {
            let target = running.link.target();
            self.instance.metrics.forget_peer(&target.tenant, &target.name);
            self.skews.forget(id);
            running.link.end();
        }
        self.filled.notify_one();
    }

    /// Renews a peer's token now.
    pub async fn refresh(&self, id: Id) -> Result<(), NotRefreshed> {
        let (answer, answered) = oneshot::channel();
        if !self.tell(id, Command::Refresh(answer)).await {
            return Err(NotRefreshed::NothingToRenew);
        }
        answered.await.unwrap_or(Err(NotRefreshed::Superseded))
    }

    /// Ends a link: forgotten at once, then revoked at the peer, or tried to for 30 days. `None` when there is no such peer.
    pub async fn unlink(&self, id: Id, given_up: GivenUp) -> Result<Option<Unlinked>, StoreError> {
        let instance = Arc::clone(&self.instance);
        let ended = self.instance.store.write(move |transaction| change::unlink(transaction, &instance, id, given_up)).await?;
        let Some(ended) = ended else { return Ok(None) };
        self.changed(id).await;
        Ok(Some(match ended {
            Ended { had_token: false, .. } => Unlinked::NothingHeld,
            Ended { waiting: None, .. } => Unlinked::NotAsked,
            Ended { waiting: Some((id, revocation)), .. } => {
                match outbox::attempt(&self.instance, &self.clients.load(), id, &revocation).await? {
                    Delivery::Confirmed => Unlinked::Revoked,
                    Delivery::Impossible => Unlinked::NotRevocable,
                    Delivery::Waiting(reason) => {
                        // The outbox may sleep past the next attempt.
                        self.deliver_now();
                        Unlinked::Waiting(reason)
                    }
                }
            }
        }))
    }

    /// Puts a new link in the place of the old one; false when something else changed the link meanwhile.
    pub async fn install(&self, new: Installation) -> Result<bool, StoreError> {
        let (instance, id) = (Arc::clone(&self.instance), new.asked.peer.id);
        let installed = self.instance.store.write(move |transaction| change::install(transaction, &instance, &new)).await?;
        point::passed("pair_stored");
        self.changed(id).await;
        self.filled.notify_one();
        match installed {
            change::Installed::Linked(facts) => {
                actor::confirm(&self.instance, &self.clients.load().of(&facts.server_trust()), &facts);
                Ok(true)
            }
            change::Installed::Superseded => Ok(false),
        }
    }

    /// Revokes a refresh token of `facts`' server that nobody holds.
    pub async fn give_back(&self, facts: &Facts, refresh: &SecretString) -> Result<(), StoreError> {
        let (instance, facts, refresh) = (Arc::clone(&self.instance), facts.clone(), refresh.clone());
        let judge = move |transaction: &store::Transaction<'_>| {
            flight::give_token_back(transaction, &instance, &facts, &refresh, Hint::Refresh, transaction.now().wall)
        };
        self.instance.store.write(judge).await?;
        self.deliver_now();
        Ok(())
    }

    /// Revokes what a change left in the outbox.
    pub fn deliver_now(&self) {
        self.filled.notify_one();
    }

    /// Asks for the metadata of `issuer`, the server of `app`, as a peer with that trust would be asked; with it, how many milliseconds its
    /// clock is ahead.
    pub async fn metadata(&self, app: &ObApp, trust: &PeerTrust, issuer: &str) -> Result<(Metadata, Option<i64>), NoMetadata> {
        let clients = self.clients.load().of(trust);
        let found = wire::metadata(&self.instance, clients.guarded_if(app.guarded), issuer).await?;
        let ahead = found.date.map(|date| date.millis() - self.instance.clock.now().wall.millis());
        Ok((found.metadata, ahead))
    }

    /// Asks for the document of the protected resource that `issuer`, the server of `app`, is itself; gives what is wrong with it, if anything.
    pub async fn resource_problem(&self, app: &ObApp, trust: &PeerTrust, issuer: &str) -> Option<MetadataProblem> {
        let deadline = self.instance.config().limits.token_timeout;
        let clients = self.clients.load().of(trust);
        wire::resource_problem(clients.guarded_if(app.guarded), issuer, deadline).await
    }

    /// Sends a code to the token endpoint of `facts`' server.
    pub async fn ask(&self, facts: &Facts, app: &ObApp, us: &ServerClient, ask: Ask<'_>) -> Reply {
        let clients = self.clients.load().of(&facts.server_trust());
        let issuer = facts.metadata.as_ref().and_then(|metadata| url::Url::parse(&metadata.issuer).ok());
        let client = clients.for_endpoint(app, issuer.as_ref(), &us.token_endpoint);
        us.ask(ask, &wire::ServerCalls::of_tokens(&self.instance, client, &us.token_endpoint)).await
    }

    /// Pushes an authorization request to the server of `facts` (RFC 9126); gives the reference for the browser, or why there is none.
    pub async fn push(
        &self,
        facts: &Facts,
        app: &ObApp,
        us: &ServerClient,
        endpoint: &url::Url,
        form: &[(&str, &str)],
    ) -> Result<String, String> {
        let clients = self.clients.load().of(&facts.server_trust());
        let issuer = facts.metadata.as_ref().and_then(|metadata| url::Url::parse(&metadata.issuer).ok());
        let client = clients.for_endpoint(app, issuer.as_ref(), endpoint);
        let calls = wire::ServerCalls::new(&self.instance, client, endpoint);
        let response = us.send(us.request(endpoint, form), &calls).await.map_err(|error| error.to_string());
        let pushed = response.and_then(|response| reference(&app.name, app.keys.is_some(), response.status(), response.body()));
        if let Err(why) = &pushed {
            self.not_begun(facts.peer.id, why.clone()).await;
        }
        pushed
    }

    /// A request URL of the peer was opened, and its button led nowhere: whoever made it sees why too, and not only whoever opened it.
    pub async fn not_begun(&self, peer: Id, why: String) {
        self.tell(peer, Command::NotBegun(why)).await;
    }

    /// The client for a peer with that trust, `guarded` where its URLs may not lead into a private network; or why the trust cannot be used.
    pub fn client(&self, trust: &PeerTrust, guarded: bool) -> Result<Client, TrustProblem> {
        let clients = self.clients.load();
        clients.own_trust(trust)?;
        Ok(clients.of(trust).guarded_if(guarded).clone())
    }

    /// Takes over a new configuration: authorities and limits. Nothing changes when an authority cannot be read.
    pub async fn reconfigured(&self) -> Result<(), TrustError> {
        let config = self.instance.config();
        if self.clients.load().fit(&config) {
            return Ok(());
        }
        self.clients.store(Arc::new(Clients::new(config, &self.instance.outgoing)?));
        for link in self.all() {
            self.reconnect(&link).await;
        }
        Ok(())
    }

    /// Makes the clients of one link anew.
    async fn reconnect(&self, link: &Link) {
        let (facts, all) = (link.facts(), self.clients.load_full());
        let (clients, server) = (all.of(&facts.peer.trust), all.of(&facts.server_trust()));
        self.tell(link.id(), Command::Reconnect { clients, server }).await;
    }

    fn begin(&self, facts: Facts, spread: Duration) {
        let all = self.clients.load_full();
        let (clients, server) = (all.of(&facts.peer.trust), all.of(&facts.server_trust()));
        let (id, target) = (facts.peer.id, actor::target(&facts, &clients));
        let metrics = self.instance.metrics.peer(&facts.peer.tenant, &facts.peer.name);
        let link = Arc::new(Link::new(id, Arc::clone(&self.instance), Snapshot::new(&self.instance, Arc::new(facts), target, 0, None)));
        let (commands, received) = mpsc::channel(WAITING);
        let start = Start {
            link: Arc::clone(&link),
            instance: Arc::clone(&self.instance),
            clients,
            server,
            metrics,
            skews: Arc::clone(&self.skews),
            stopping: self.stopping.clone(),
            flights: self.flights.clone(),
            spread,
        };
        tokio::spawn(Actor::new(start).run(received));
        self.actors.lock().expect("nothing panics while it is held").insert(id, Running { link, commands });
    }

    /// The link to the peer with that id.
    pub fn by_id(&self, id: Id) -> Option<Arc<Link>> {
        self.actors.lock().expect("nothing panics while it is held").get(&id).map(|running| Arc::clone(&running.link))
    }

    /// Tells the actor of a peer something; false when there is none.
    async fn tell(&self, id: Id, command: Command) -> bool {
        let commands = self.actors.lock().expect("nothing panics while it is held").get(&id).map(|running| running.commands.clone());
        match commands {
            Some(commands) => commands.send(command).await.is_ok(),
            None => false,
        }
    }

    fn reindex(&self) {
        let actors = self.actors.lock().expect("nothing panics while it is held");
        let mut by_name: HashMap<String, HashMap<String, Arc<Link>>> = HashMap::new();
        for running in actors.values() {
            let target = running.link.target();
            by_name.entry(target.tenant.clone()).or_default().insert(target.name.clone(), Arc::clone(&running.link));
        }
        self.by_name.store(Arc::new(by_name));
    }

    fn deliver(self: &Arc<Self>) {
        let (links, instance, filled) = (Arc::downgrade(self), Arc::clone(&self.instance), Arc::clone(&self.filled));
        let (fallback, stopping) = (self.clients.load_full(), self.stopping.clone());
        let clients = move || links.upgrade().map_or_else(|| Arc::clone(&fallback), |links| links.clients.load_full());
        tokio::spawn(async move {
            tokio::select! {
                () = outbox::run(instance, clients, filled) => {}
                () = stopping.cancelled() => {}
            }
        });
    }
}
