//! Turns at something that only few can do at a time, given out address by address: whoever sends many requests waits behind their own, and
//! not everybody else behind them.
//!
//! Addresses from which somebody has shown of late who they are come first, so that a flood from many strange ones does not keep those away
//! who are here every day. Where all places are taken, the longest queue gives way to a newcomer.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use quick_cache::unsync::Cache;
use tokio::sync::oneshot;

/// Who may wait; more are refused.
const PLACES: usize = 64;
/// Of those, who come from one address.
const PLACES_OF_ONE: usize = 8;
/// Addresses that are remembered as familiar; the least used go first.
const FAMILIAR: usize = 1024;

/// There is no place: to be tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many wait already")]
pub(super) struct NoPlace;

/// Gives out turns. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Turns(Arc<Mutex<State>>);

/// A turn; it ends when it is dropped.
#[derive(Debug)]
pub(super) struct Turn(Option<Turns>);

#[derive(Debug)]
struct State {
    free: usize,
    familiar: Cache<Option<IpAddr>, ()>,
    first: Lane,
    second: Lane,
}

/// Who waits, in the order of their addresses.
#[derive(Debug, Default)]
struct Lane {
    order: VecDeque<Option<IpAddr>>,
    queues: HashMap<Option<IpAddr>, VecDeque<oneshot::Sender<Turn>>>,
}

impl Turns {
    /// `at_once` turns at a time.
    pub(super) fn new(at_once: usize) -> Self {
        let (first, second) = (Lane::default(), Lane::default());
        Self(Arc::new(Mutex::new(State { free: at_once, familiar: Cache::new(FAMILIAR), first, second })))
    }

    /// Waits for a turn of somebody at `from`.
    ///
    /// # Errors
    /// There is no place to wait, or it was given to somebody whose address has fewer.
    pub(super) async fn take(&self, from: Option<IpAddr>) -> Result<Turn, NoPlace> {
        let waiting = match self.enter(from)? {
            Ok(turn) => return Ok(turn),
            Err(waiting) => waiting,
        };
        waiting.await.map_err(|_| NoPlace)
    }

    /// Somebody at `from` was who they said.
    pub(super) fn remember(&self, from: Option<IpAddr>) {
        self.lock().familiar.insert(from, ());
    }

    /// A turn that is free, or a place.
    fn enter(&self, from: Option<IpAddr>) -> Result<Result<Turn, oneshot::Receiver<Turn>>, NoPlace> {
        let mut state = self.lock();
        if state.free > 0 {
            state.free -= 1;
            return Ok(Ok(Turn(Some(self.clone()))));
        }
        state.first.forget_gone();
        state.second.forget_gone();
        let is_familiar = state.familiar.get(&from).is_some();
        let lane = if is_familiar { &state.first } else { &state.second };
        let here = lane.queues.get(&from).map_or(0, VecDeque::len);
        if here >= PLACES_OF_ONE {
            return Err(NoPlace);
        }
        if state.first.len() + state.second.len() >= PLACES {
            state.second.give_way(if is_familiar { 0 } else { here + 1 })?;
        }
        let (sender, receiver) = oneshot::channel();
        let lane = if is_familiar { &mut state.first } else { &mut state.second };
        lane.push(from, sender);
        Ok(Err(receiver))
    }

    /// Hands a turn that has ended to whoever is next.
    fn pass_on(self) {
        loop {
            let mut state = self.lock();
            let Some(next) = state.first.pop().or_else(|| state.second.pop()) else {
                state.free += 1;
                return;
            };
            drop(state);
            match next.send(Turn(Some(self.clone()))) {
                Ok(()) => return,
                // Nobody waits there any more; the turn is still to be passed on, here.
                Err(mut turn) => turn.0 = None,
            }
        }
    }

    /// A panic elsewhere leaves the queues whole: each change is one step.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(turns) = self.0.take() {
            turns.pass_on();
        }
    }
}

impl Lane {
    fn len(&self) -> usize {
        self.queues.values().map(VecDeque::len).sum()
    }

    fn push(&mut self, from: Option<IpAddr>, sender: oneshot::Sender<Turn>) {
        let queue = self.queues.entry(from).or_default();
        if queue.is_empty() {
            self.order.push_back(from);
        }
        queue.push_back(sender);
    }

    /// The first of the next address, which goes to the end.
    fn pop(&mut self) -> Option<oneshot::Sender<Turn>> {
        let from = self.order.pop_front()?;
        let queue = self.queues.get_mut(&from)?;
        let next = queue.pop_front();
        if queue.is_empty() {
            self.queues.remove(&from);
        } else {
            self.order.push_back(from);
        }
        next
    }

    /// Takes out who has given up.
    fn forget_gone(&mut self) {
        self.queues.retain(|_, queue| {
            queue.retain(|sender| !sender.is_closed());
            !queue.is_empty()
        });
        self.order.retain(|from| self.queues.contains_key(from));
    }

    /// Takes the last place of the longest queue, if that has more than `more_than`.
    fn give_way(&mut self, more_than: usize) -> Result<(), NoPlace> {
        let longest = self.queues.iter_mut().max_by_key(|(_, queue)| queue.len()).filter(|(_, queue)| queue.len() > more_than);
        let (_, queue) = longest.ok_or(NoPlace)?;
        // Who waited there hears of it by the end of the channel.
        queue.pop_back();
        self.forget_gone();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn address(number: u8) -> Option<IpAddr> {
        Some(IpAddr::from([192, 0, 2, number]))
    }

    /// Somebody who waits, and the address.
    struct Waiting(u8, oneshot::Receiver<Turn>);

    /// Turns of which the only one is taken, and how somebody gets a place.
    fn taken() -> (Turns, Turn) {
        let turns = Turns::new(1);
        let turn = turns.take(address(0)).now_or_never().expect("no wait").expect("a turn");
        (turns, turn)
    }

    fn waits(turns: &Turns, number: u8) -> Result<Waiting, NoPlace> {
        turns.enter(address(number)).map(|place| Waiting(number, place.expect_err("no turn is free")))
    }

    /// Ends turn after turn; whose addresses had them.
    fn served(mut turn: Turn, waiting: &mut Vec<Waiting>) -> Vec<u8> {
        let mut order = Vec::new();
        loop {
            drop(turn);
            let Some(next) = waiting.iter_mut().position(|Waiting(_, place)| {
                // What was sent stays to be received.
                !place.is_empty()
            }) else {
                return order;
            };
            let Waiting(number, mut place) = waiting.swap_remove(next);
            order.push(number);
            turn = place.try_recv().expect("it was sent");
        }
    }

    #[test]
    fn a13_turns_go_round_the_addresses() {
        let (turns, turn) = taken();
        let mut waiting: Vec<Waiting> = [1, 1, 1, 2, 3, 3].map(|number| waits(&turns, number).expect("a place")).into();
        assert_eq!(served(turn, &mut waiting), [1, 2, 3, 1, 3, 1]);
        assert!(turns.take(address(9)).now_or_never().is_some_and(|turn| turn.is_ok()), "it is free again");
    }

    #[test]
    fn a13_familiar_addresses_come_first() {
        let (turns, turn) = taken();
        turns.remember(address(7));
        let mut waiting: Vec<Waiting> = [1, 2, 7].map(|number| waits(&turns, number).expect("a place")).into();
        assert_eq!(served(turn, &mut waiting), [7, 1, 2]);
    }

    #[test]
    fn a13_the_longest_queue_gives_way_and_the_familiar_always_get_in() {
        let (turns, _turn) = taken();
        let mut waiting: Vec<Waiting> =
            (1..=8).flat_map(|number| [number; PLACES_OF_ONE]).map(|number| waits(&turns, number).expect("a place")).collect();
        assert_eq!((waiting.len(), waits(&turns, 1).err()), (PLACES, Some(NoPlace)), "nobody has more than their share");
        for number in 9..=40 {
            waiting.push(waits(&turns, number).unwrap_or_else(|_| panic!("{number} found no place")));
        }
        waiting.retain_mut(|Waiting(_, place)| matches!(place.try_recv(), Err(oneshot::error::TryRecvError::Empty)));
        assert_eq!(waiting.len(), PLACES, "as many have lost theirs");
        let mut all = 41;
        while let Ok(next) = waits(&turns, all) {
            waiting.push(next);
            all += 1;
        }
        turns.remember(address(200));
        waiting.push(waits(&turns, 200).expect("a place for somebody who is known here"));
    }

    #[test]
    fn who_gives_up_leaves_the_place_and_the_turn_to_others() {
        let (turns, turn) = taken();
        let mut waiting: Vec<Waiting> = (0..PLACES_OF_ONE).map(|_| waits(&turns, 1).expect("a place")).collect();
        waiting.truncate(1);
        waiting.extend((1..PLACES_OF_ONE).map(|_| waits(&turns, 1).expect("places of those who left")));
        drop(waiting.remove(0));
        let last = waits(&turns, 2).expect("a place");
        drop(turn);
        drop(waiting);
        let turn = last.1.now_or_never().expect("it was passed on").expect("a turn");
        drop(turn);
        assert!(turns.take(address(3)).now_or_never().is_some_and(|turn| turn.is_ok()));
    }
}
