//! What is settled stays settled: answers whose fate was unknown, rows that cannot be read, peers that go while they come.

use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;

use super::flight::{self, Outcome};
use super::*;
use crate::config;
use crate::outbound::answer::Granted;
use crate::outbound::attempt::Verdict;
use crate::outbound::handshake::{Handshake, Sent, Stage};
use crate::secret::Digest;
use crate::store::{Fault, Store, Transaction, held_token, outbox, sample};
use crate::system::{SystemClock, SystemRandom};

const PEER: Id = Id::from_bytes([2; 16]);
const HANDSHAKE: Id = Id::from_bytes([7; 16]);

struct World {
    _directory: tempfile::TempDir,
    instance: Arc<Instance>,
}

impl World {
    /// An instance whose peer `two`, where nobody answers, is linked.
    async fn linked() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = directory.path().join("one.toml");
        let text = "[instance]\nname = \"one\"\npublic_url = \"https://one.example:7443\"\nstate_dir = \"state\"\n[public]\ntls = \"off\"\nlisten = [\"127.0.0.1:0\"]\n";
        std::fs::write(&file, text).expect("written");
        let config = config::load(&file).unwrap_or_else(|problems| panic!("{}", problems.annotated(false))).config;
        let clock = Arc::new(SystemClock::new());
        let store = Store::open(&directory.path().join("state"), None, clock.clone()).expect("a new store");
        let (seals, epoch) = (store.seals().clone(), store.epoch());
        let judge = move |transaction: &Transaction<'_>| sample::linked_peer(transaction, &seals, epoch, "http://127.0.0.1:1", "t1");
        store.write(judge).await.expect("written");
        let instance = Arc::new(Instance::new(Arc::new(config), store, clock, Arc::new(SystemRandom)));
        Self { _directory: directory, instance }
    }

    async fn facts(&self) -> Facts {
        let (seals, epoch) = (self.instance.store.seals().clone(), self.instance.store.epoch());
        let look = move |connection: &Connection| store::link::facts(connection, &seals, epoch, PEER);
        self.instance.store.read(look).await.expect("read").expect("it is there")
    }

    async fn writes<T: Send + 'static>(&self, judge: impl FnMut(&Transaction<'_>) -> Result<T, Fault> + Send + 'static) -> T {
        self.instance.store.write(judge).await.expect("written")
    }

    /// The actor of the link of `facts`, which does nothing by itself.
    fn actor(&self, facts: &Facts) -> Actor {
        let clients = Clients::new(self.instance.config(), &self.instance.outgoing).expect("clients").of(&facts.peer.trust);
        let shown = Snapshot::new(&self.instance, Arc::new(facts.clone()), actor::target(facts, &clients), 0, None);
        Actor::new(Start {
            link: Arc::new(Link::new(PEER, Arc::clone(&self.instance), shown)),
            instance: Arc::clone(&self.instance),
            clients: clients.clone(),
            server: clients,
            metrics: self.instance.metrics.peer("default", "two"),
            skews: Arc::new(Skews::new(Arc::clone(&self.instance.metrics))),
            stopping: CancellationToken::new(),
            flights: TaskTracker::new(),
            spread: Duration::ZERO,
        })
    }

    /// How many tokens wait to be revoked.
    async fn given_back(&self) -> usize {
        let (seals, now) = (self.instance.store.seals().clone(), self.instance.clock.now().wall.plus(sample::HOUR));
        self.instance.store.read(move |connection| outbox::due(connection, &seals, now, 10)).await.expect("read").len()
    }
}

fn granted() -> Granted {
    Granted {
        access: "t2".into(),
        refresh: Some("r2".into()),
        life: sample::HOUR,
        refresh_life: None,
        scope: None,
        subject: None,
        key: None,
    }
}

#[tokio::test]
async fn c6_tokens_that_are_settled_twice_are_held_and_not_given_back() {
    let world = World::linked().await;
    let facts = Arc::new(world.facts().await);
    for turn in 0..2 {
        let (instance, facts) = (Arc::clone(&world.instance), Arc::clone(&facts));
        let verdict = Verdict::Store(Box::new(granted()));
        let landing = world.writes(move |transaction| flight::settle_in(transaction, &instance, &facts, &verdict, None, "", None)).await;
        assert!(matches!(landing.outcome, Outcome::Renewed), "turn {turn}: {:?}", landing.outcome);
    }
    assert_eq!(world.given_back().await, 0);
    // Others than those that are held are given back.
    let (instance, seals) = (Arc::clone(&world.instance), world.instance.store.seals().clone());
    let other = Verdict::Store(Box::new(Granted { access: "t3".into(), refresh: Some("r3".into()), ..granted() }));
    let landing = world.writes(move |transaction| flight::settle_in(transaction, &instance, &facts, &other, None, "", None)).await;
    assert!(matches!(landing.outcome, Outcome::Superseded), "{:?}", landing.outcome);
    let epoch = world.instance.store.epoch();
    let held = world.writes(move |transaction| held_token::of_peer(transaction, &seals, epoch, PEER)).await.expect("tokens");
    assert!(held.refresh.is_some_and(|refresh| crate::secret::ExposeSecret::expose_secret(&refresh) == "r2"));
}

#[tokio::test]
async fn a_link_that_is_installed_twice_is_linked_and_not_given_back() {
    let world = World::linked().await;
    let now = world.instance.clock.now();
    let (seals, epoch) = (world.instance.store.seals().clone(), world.instance.store.epoch());
    world
        .writes(move |transaction| {
            let stage = Stage::Exchanging { since: now.wall };
            let begun = Handshake {
                id: HANDSHAKE,
                peer: PEER,
                ticket: Digest::of("ticket"),
                browser: Digest::of("browser"),
                state: Digest::of("state"),
                sent: Sent {
                    issuer: None,
                    iss_promised: false,
                    token_endpoint: "http://127.0.0.1:1/oauth/token".parse().expect("a URL"),
                    redirect_uri: "https://one.example:7443/oauth/callback".to_owned(),
                    scope: "a".to_owned(),
                },
                expires_at: now.wall.plus(sample::HOUR),
                stage,
            };
            handshake::put(transaction, &seals, epoch, &begun)
        })
        .await;
    let asked = world.facts().await;
    for turn in 0..2 {
        let instance = Arc::clone(&world.instance);
        let new = Installation { handshake: HANDSHAKE, asked: Box::new(asked.clone()), requested: now, granted: granted() };
        let installed = world.writes(move |transaction| change::install(transaction, &instance, &new)).await;
        assert!(matches!(installed, change::Installed::Linked(_)), "turn {turn}: {installed:?}");
    }
    assert_eq!(world.given_back().await, 0);
}

#[tokio::test]
async fn an_answer_that_was_settled_before_an_unlink_brings_no_token_back() {
    let world = World::linked().await;
    let facts = world.facts().await;
    let mut actor = world.actor(&facts);
    let link = Arc::clone(actor.link());
    let (instance, verdict) = (Arc::clone(&world.instance), Verdict::Store(Box::new(granted())));
    let landing = world.writes(move |transaction| flight::settle_in(transaction, &instance, &facts, &verdict, None, "", None)).await;
    let instance = Arc::clone(&world.instance);
    world.writes(move |transaction| change::unlink(transaction, &instance, PEER, GivenUp::Forgotten)).await;
    // Of the two, which are told at the same time, the actor happens to hear of the later one first.
    let (done, is_done) = oneshot::channel();
    actor.obey(Command::Reread(done)).await;
    is_done.await.expect("it is shown");
    actor.land(landing);
    assert!(link.credential_now().is_none(), "a token that was given up");
}

#[tokio::test]
async fn a_token_that_the_peer_does_not_take_is_known_for_it_from_the_first_refusal_on() {
    let world = World::linked().await;
    let facts = world.facts().await;
    let actor = world.actor(&facts);
    let link = actor.link();
    assert!(!link.facts().is_refused);
    // The actor does nothing, as while it sleeps over a refresh that failed.
    assert!(link.refused(facts.peer.generation, Duration::ZERO).await.is_err());
    assert!(link.facts().is_refused, "calls are refused from now on");
}

#[tokio::test]
async fn while_a_link_cannot_be_read_again_no_call_is_made_over_it() {
    let world = World::linked().await;
    let links = Links::start(Arc::clone(&world.instance)).await.expect("links");
    let link = links.find("default", "two").expect("it is there");
    // A row that no version of this program writes cannot be read.
    let corrupt = |what: &'static str| move |transaction: &Transaction<'_>| Ok(transaction.execute(what, [])?);
    world.writes(corrupt("UPDATE peer SET url = 'nothing'")).await;
    let changing = {
        let links = Arc::clone(&links);
        tokio::spawn(async move { links.changed(PEER).await })
    };
    let withheld = async {
        while link.credential_now().is_some() {
            tokio::task::yield_now().await
        }
    };
    tokio::time::timeout(Duration::from_secs(10), withheld).await.expect("nothing is carried");
    tokio::time::timeout(Duration::from_secs(10), changing).await.expect("who changed it is not held up").expect("no panic");
    world.writes(corrupt("UPDATE peer SET url = 'http://127.0.0.1:1/'")).await;
    let read = async {
        while link.credential_now().is_none() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), read).await.expect("it is read");
}

#[tokio::test]
async fn a_peer_that_is_deleted_while_it_is_taken_up_is_not_looked_after() {
    let world = World::linked().await;
    let links = Links::start(Arc::clone(&world.instance)).await.expect("links");
    links.removed(PEER);
    world.writes(|transaction| peer::delete(transaction, PEER)).await;
    links.added(PEER).await.expect("read");
    assert!(links.all().is_empty());
}

#[tokio::test]
async fn who_asks_for_a_refresh_of_what_is_given_up_meanwhile_is_answered() {
    let world = World::linked().await;
    let mut actor = world.actor(&world.facts().await);
    let (answer, answered) = oneshot::channel();
    actor.obey(Command::Refresh(answer)).await;
    let instance = Arc::clone(&world.instance);
    world.writes(move |transaction| change::unlink(transaction, &instance, PEER, GivenUp::Forgotten)).await;
    let (done, is_done) = oneshot::channel();
    actor.obey(Command::Reread(done)).await;
    is_done.await.expect("it is shown");
    assert!(matches!(answered.await, Ok(Err(NotRefreshed::NothingToRenew))));
}
