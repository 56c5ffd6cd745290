//! The same over real daemons: two processes that are linked, and what happens to them in an order that a seed decides. Each may be killed
//! at any time; the link goes on, or the next step is there, and there is never more than one live grant.

use p2pid::random::{self, Random};

use crate::world::clock::SeededRandom;
use crate::world::pair::Pair;
use crate::world::patience::eventually;
use crate::world::person::Person;

/// What happens to the pair.
#[derive(Clone, Copy, Debug)]
enum Event {
    Call,
    Refresh,
    KillCaller,
    KillCalled,
    KillBoth,
    Restart,
    /// The called one dies when it has minted a pair that its client does not know yet.
    DieWithTheAnswer,
    /// The caller dies when it has the answer and has not stored it.
    DieWithThePair,
    RotateSecret,
    Revoke,
    Unlink,
    /// The called one is put back to a backup that was made before the last refresh.
    Restore,
}

const EVENTS: [Event; 12] = [
    Event::Call,
    Event::Refresh,
    Event::KillCaller,
    Event::KillCalled,
    Event::KillBoth,
    Event::Restart,
    Event::DieWithTheAnswer,
    Event::DieWithThePair,
    Event::RotateSecret,
    Event::Revoke,
    Event::Unlink,
    Event::Restore,
];

/// Each of them once, in the seed's order.
fn shuffled(seed: u64) -> Vec<Event> {
    let chance = SeededRandom::new(seed);
    let mut events = EVENTS.to_vec();
    for last in (1..events.len()).rev() {
        let number = u64::from_le_bytes(random::bytes(&chance as &dyn Random));
        let place = usize::try_from(number % (last as u64 + 1)).expect("an index");
        events.swap(place, last);
    }
    events
}

#[expect(clippy::print_stderr, reason = "a failure says how it is replayed")]
#[tokio::test]
async fn a_link_of_real_daemons_survives_what_a_seed_decides() {
    let seed = super::seed().unwrap_or_else(super::unseen);
    let events = shuffled(seed);
    eprintln!("{}={seed}: {events:?}", super::SEED);
    let mut pair = Pair::linked("1h").await;
    for (number, event) in events.into_iter().enumerate() {
        pair.meets(event, number).await;
        pair.is_sound().await;
    }
}

impl Pair {
    async fn meets(&mut self, event: Event, number: usize) {
        match event {
            Event::Call => assert_eq!(self.calls().await, 200),
            Event::Refresh => self.refreshes().await,
            Event::KillCaller => {
                self.one.is_killed().await;
                self.one.starts().await;
            }
            Event::KillCalled => {
                self.two.is_killed().await;
                self.two.starts().await;
            }
            Event::KillBoth => {
                self.one.is_killed().await;
                self.two.is_killed().await;
                self.two.starts().await;
                self.one.starts().await;
            }
            Event::Restart => {
                self.two.is_stopped().await;
                self.two.starts().await;
                self.one.is_stopped().await;
                self.one.starts().await;
            }
            Event::DieWithTheAnswer => {
                self.two.is_stopped().await;
                self.two.starts_to_die_at("pair_minted").await;
                let outcome = self.one.tries(&["peer", "refresh", "two"], None).await;
                assert!(!outcome.status.success(), "nobody answered: {}", outcome.stdout);
                self.two.dies().await;
                self.two.starts().await;
            }
            Event::DieWithThePair => {
                self.one.is_stopped().await;
                self.one.starts_to_die_at("answer_read").await;
                let _ = self.one.tries(&["peer", "refresh", "two"], None).await;
                self.one.dies().await;
                self.one.starts().await;
            }
            Event::RotateSecret => {
                let app = self.two.runs(&["ib", "rotate-secret", "one", "--overlap", "0s"]).await;
                let secret = app["client_secret"].as_str().unwrap_or_else(|| panic!("no client_secret: {app}"));
                let refused = self.one.tries(&["peer", "refresh", "two"], None).await;
                assert!(!refused.status.success(), "the secret of before is refused: {}", refused.stdout);
                self.one.runs_with(&["ob", "update", "two", "--client-secret-stdin"], secret).await;
            }
            Event::Revoke => {
                for grant in self.live_grants().await {
                    self.two.runs(&["grant", "revoke", &grant, "--yes"]).await;
                }
                assert_ne!(self.calls().await, 200, "what was revoked works no more");
                self.is_linked_anew().await;
            }
            Event::Unlink => {
                self.one.runs(&["peer", "unlink", "two", "--yes"]).await;
                assert_ne!(self.calls().await, 200, "an unlinked peer is not called");
                self.is_linked_anew().await;
            }
            Event::Restore => {
                let file = self.two.settings.folder().join(format!("backup-{number}"));
                let file = file.to_str().expect("a path in UTF-8");
                self.two.runs(&["backup", file]).await;
                self.refreshes().await;
                self.two.is_killed().await;
                self.two.runs(&["restore", file]).await;
                self.two.starts().await;
                assert_ne!(self.calls().await, 200, "no token outlives a restore");
                self.is_linked_anew().await;
            }
        }
    }

    async fn refreshes(&self) {
        self.one.runs(&["peer", "refresh", "two"]).await;
    }

    async fn live_grants(&self) -> Vec<String> {
        let grants = self.two.runs(&["grant", "list"]).await;
        let live = grants.as_array().into_iter().flatten().filter(|grant| grant["ended_at"].is_null());
        live.map(|grant| grant["id"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// Somebody with a browser that knows nothing of before goes the whole way again.
    async fn is_linked_anew(&mut self) {
        let authorities = [self.one.settings.authority(), self.two.settings.authority()];
        self.operator = Person::new("operator@two.example", "correct horse battery", &authorities);
        self.links().await;
    }

    /// Linked and called; refreshed, which shows what was consumed and ought not to have been; and one live grant.
    async fn is_sound(&self) {
        eventually("the link to be well again", async || {
            let is_well = self.state().await == "linked" && self.calls().await == 200;
            is_well.then_some(())
        })
        .await;
        self.refreshes().await;
        assert_eq!(self.calls().await, 200);
        // What a link that was replaced leaves is given back in the background.
        eventually("one live grant", async || (self.live_grants().await.len() == 1).then_some(())).await;
    }
}
