//! DPoP proofs are good once, and soon (RFC 9449 §8, §11.1): each carries a nonce of ours, which says when it can have been made at the
//! earliest, and is remembered until that nonce is refused.
//!
//! Both live in memory only. A restart makes a new nonce, so that no proof from before it is good after it, and no call waits for a disk.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderMap;

use crate::clock::{Clock, Moment};
use crate::oauth::dpop::{self, Proof, Request};
use crate::random::{self, Random};
use crate::secret::Digest;

/// A nonce is handed out for this long, and taken for as long again: a client that calls every few minutes needs no second round trip.
const HANDED_OUT: Duration = Duration::from_secs(5 * 60);

/// Proofs remembered for one nonce at most, some 12 MB; then the next nonce begins early.
const MOST: usize = 256 * 1024;

/// Locks among which proofs are spread, so that cores do not wait for one another.
const SHARDS: usize = 16;

/// Why a proof shows no key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoKey {
    /// It is not one for this request.
    #[error(transparent)]
    Bad(#[from] dpop::Refusal),
    /// It was used before.
    #[error("the DPoP proof was used before")]
    Replayed,
    /// It has no nonce of ours that is still taken; the answer has to hand one out.
    #[error("the DPoP proof needs the nonce of this answer")]
    NeedsNonce,
}

/// What becomes of a proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// It is new, and used now.
    Fresh,
    /// It has no nonce, or one that is not taken (any more).
    NeedsNonce,
    /// It was used before.
    Replayed,
}

/// The proofs that were used of late.
#[derive(Debug)]
pub struct Proofs {
    nonces: ArcSwap<Nonces>,
    /// Held by whoever makes the next nonce.
    turn: Mutex<()>,
}

#[derive(Debug)]
struct Nonces {
    current: Arc<Nonce>,
    previous: Option<Arc<Nonce>>,
}

#[derive(Debug)]
struct Nonce {
    text: String,
    since: Moment,
    used: [Mutex<HashSet<Digest>>; SHARDS],
    count: AtomicUsize,
}

impl Proofs {
    /// None were used.
    pub fn new(random: &dyn Random, now: Moment) -> Self {
        let nonces = Nonces { current: Arc::new(Nonce::new(random, now)), previous: None };
        Self { nonces: ArcSwap::from_pointee(nonces), turn: Mutex::new(()) }
    }

    /// The nonce for the next proof.
    pub fn nonce(&self, clock: &dyn Clock, random: &dyn Random) -> String {
        self.nonces(clock.now(), random).current.text.clone()
    }

    /// Whether a proof with that nonce should be told the next one already.
    pub fn is_ageing(&self, nonce: Option<&str>) -> bool {
        nonce != Some(self.nonces.load().current.text.as_str())
    }

    /// What a request proves; nothing where there is no proof. A proof that is believed is used by that.
    ///
    /// # Errors
    /// There is one that shows no key.
    pub fn of_request(
        &self,
        headers: &HeaderMap,
        asked: &Request<'_>,
        clock: &dyn Clock,
        random: &dyn Random,
    ) -> Result<Option<Proof>, NoKey> {
        let Some(proof) = dpop::presented(headers, asked, clock.now().wall)? else { return Ok(None) };
        match self.take(&proof, clock, random) {
            Verdict::Fresh => Ok(Some(proof)),
            Verdict::NeedsNonce => Err(NoKey::NeedsNonce),
            Verdict::Replayed => Err(NoKey::Replayed),
        }
    }

    /// Uses a proof.
    fn take(&self, proof: &Proof, clock: &dyn Clock, random: &dyn Random) -> Verdict {
        let nonces = self.nonces(clock.now(), random);
        let known = [Some(&nonces.current), nonces.previous.as_ref()];
        match known.into_iter().flatten().find(|nonce| Some(nonce.text.as_str()) == proof.nonce.as_deref()) {
            Some(nonce) if nonce.take(proof.once) => Verdict::Fresh,
            Some(_) => Verdict::Replayed,
            None => Verdict::NeedsNonce,
        }
    }

    /// The nonces that are taken now; the next one is made when it is time.
    fn nonces(&self, now: Moment, random: &dyn Random) -> Arc<Nonces> {
        let nonces = self.nonces.load_full();
        if !nonces.current.is_spent(now) {
            return nonces;
        }
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let nonces = self.nonces.load_full();
        if nonces.current.is_spent(now) {
            let is_taken = now.age_of(&nonces.current.since) < HANDED_OUT * 2;
            let previous = is_taken.then(|| Arc::clone(&nonces.current));
            self.nonces.store(Arc::new(Nonces { current: Arc::new(Nonce::new(random, now)), previous }));
        }
        self.nonces.load_full()
    }
}

impl Nonce {
    fn new(random: &dyn Random, now: Moment) -> Self {
        let text = URL_SAFE_NO_PAD.encode(random::bytes::<18>(random));
        Self { text, since: now, used: Default::default(), count: AtomicUsize::new(0) }
    }

    /// Whether it is handed out no longer.
    fn is_spent(&self, now: Moment) -> bool {
        now.age_of(&self.since) >= HANDED_OUT || self.count.load(Ordering::Relaxed) >= MOST
    }

    /// Remembers a proof; false when it was there.
    fn take(&self, once: Digest) -> bool {
        let shard = &self.used[usize::from(once.as_bytes()[0]) % SHARDS];
        let is_new = shard.lock().unwrap_or_else(PoisonError::into_inner).insert(once);
        if is_new {
            self.count.fetch_add(1, Ordering::Relaxed);
        }
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oauth::thumbprint::KeyThumbprint;
    use crate::store::sample::StandingClock;
    use crate::system::SystemRandom;

    fn proof(nonce: Option<&str>, jti: u32) -> Proof {
        let once = Digest::of(&jti.to_string());
        Proof { key: KeyThumbprint::of_canonical("key"), nonce: nonce.map(str::to_owned), once }
    }

    #[test]
    fn g6_a_proof_is_good_once_and_with_a_nonce_of_ours() {
        let clock = StandingClock::new();
        let proofs = Proofs::new(&SystemRandom, clock.now());
        let take = |nonce: Option<&str>, jti| proofs.take(&proof(nonce, jti), clock.as_ref(), &SystemRandom);
        let first = proofs.nonce(clock.as_ref(), &SystemRandom);
        assert_eq!((take(None, 1), take(Some("made up"), 1)), (Verdict::NeedsNonce, Verdict::NeedsNonce));
        assert_eq!((take(Some(&first), 1), take(Some(&first), 1)), (Verdict::Fresh, Verdict::Replayed));
        assert_eq!(take(Some(&first), 2), Verdict::Fresh);

        clock.pass(HANDED_OUT);
        let second = proofs.nonce(clock.as_ref(), &SystemRandom);
        assert!(first != second && proofs.is_ageing(Some(&first)) && !proofs.is_ageing(Some(&second)));
        assert_eq!((take(Some(&first), 1), take(Some(&first), 3)), (Verdict::Replayed, Verdict::Fresh), "both are taken for a while");
        clock.pass(HANDED_OUT);
        assert_eq!((take(Some(&first), 4), take(Some(&second), 4)), (Verdict::NeedsNonce, Verdict::Fresh));
        clock.pass(HANDED_OUT * 10);
        assert_eq!(take(Some(&second), 5), Verdict::NeedsNonce, "nobody asked meanwhile, and it is old all the same");
    }

    #[test]
    fn g6_a_restart_leaves_no_proof_good() {
        let clock = StandingClock::new();
        let before = Proofs::new(&SystemRandom, clock.now()).nonce(clock.as_ref(), &SystemRandom);
        let after = Proofs::new(&SystemRandom, clock.now());
        assert_eq!(after.take(&proof(Some(&before), 1), clock.as_ref(), &SystemRandom), Verdict::NeedsNonce);
    }

    #[test]
    fn g6_what_is_remembered_is_bounded() {
        let clock = StandingClock::new();
        let proofs = Proofs::new(&SystemRandom, clock.now());
        let first = proofs.nonce(clock.as_ref(), &SystemRandom);
        proofs.nonces.load().current.count.store(MOST, Ordering::Relaxed);
        let second = proofs.nonce(clock.as_ref(), &SystemRandom);
        assert_ne!(first, second);
        proofs.nonces.load().current.count.store(MOST, Ordering::Relaxed);
        let take = |nonce: &str| proofs.take(&proof(Some(nonce), 1), clock.as_ref(), &SystemRandom);
        assert_eq!((take(&first), take(&second)), (Verdict::NeedsNonce, Verdict::Fresh));
    }
}
