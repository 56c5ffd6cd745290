//! Whose calls they are: each caller of the relay has a bound of its own, over all peers that it calls.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

use crate::id::Id;
use crate::net::lane::{Lane, Pass};

/// Whose call it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Sender {
    /// That caller's.
    Caller(Id),
    /// Anybody's, at a relay that is open.
    Anybody,
    /// An operator's.
    Operator,
}

/// The lanes of all who have called.
#[derive(Debug, Default)]
pub(super) struct Senders {
    lanes: ArcSwap<HashMap<Sender, Arc<Lane>>>,
    /// Held by whoever changes which lanes there are.
    change: Mutex<()>,
}

impl Senders {
    /// A place for a call of `sender`, of which there are `most`; `None` when all are taken. The lanes on which nothing is under way go when a
    /// new sender comes: they are closed first, so that nobody is let in on one that another call of the same sender no longer finds.
    pub(super) fn enter(&self, sender: Sender, most: usize) -> Option<Pass> {
        if let Some(lane) = self.lanes.load().get(&sender) {
            let pass = lane.try_enter(most);
            if pass.is_some() || !lane.is_closed() {
                return pass;
            }
        }
        // Nothing is left half done by a panic here: the lanes are replaced as a whole.
        let _change = self.change.lock().unwrap_or_else(PoisonError::into_inner);
        let lanes = self.lanes.load_full();
        // Another call of the same sender may have been here first; what is in the table now is not closed while the lock is held.
        if let Some(lane) = lanes.get(&sender).filter(|lane| !lane.is_closed()) {
            return lane.try_enter(most);
        }
        let lane = Arc::new(Lane::default());
        let pass = lane.try_enter(most);
        let busy = lanes.iter().filter(|(_, lane)| !lane.close_if_idle()).map(|(sender, lane)| (*sender, Arc::clone(lane)));
        self.lanes.store(Arc::new(busy.chain([(sender, lane)]).collect()));
        pass
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn caller(number: u8) -> Sender {
        Sender::Caller(Id::from_bytes([number; 16]))
    }

    #[test]
    fn a_sender_keeps_its_lane_while_calls_are_under_way_and_nobody_s_stays_for_ever() {
        let senders = Senders::default();
        let pass = senders.enter(caller(1), 1).expect("it is free");
        drop(senders.enter(caller(2), 1));
        assert!(senders.enter(caller(1), 1).is_none() && senders.enter(Sender::Anybody, 1).is_some());
        assert_eq!(senders.lanes.load().len(), 2, "the second has gone");
        drop(pass);
        drop(senders.enter(Sender::Operator, 1));
        assert!(senders.lanes.load().len() == 1 && senders.enter(caller(1), 1).is_some());
    }

    #[test]
    fn who_has_found_a_lane_that_goes_is_not_let_in_on_it() {
        let senders = Senders::default();
        drop(senders.enter(caller(1), 1));
        let found = Arc::clone(senders.lanes.load().get(&caller(1)).expect("it is there"));
        drop(senders.enter(caller(2), 1));
        let _pass = senders.enter(caller(1), 1).expect("on a lane of its own again");
        assert!(found.try_enter(1).is_none(), "that would be two where one may be");
    }

    #[test]
    fn no_sender_has_more_places_than_its_share_however_many_come_and_go() {
        let (senders, inside) = (Senders::default(), AtomicUsize::new(0));
        std::thread::scope(|threads| {
            for number in 0..4 {
                let (senders, inside) = (&senders, &inside);
                threads.spawn(move || {
                    for round in 0..20_000 {
                        if let Some(pass) = senders.enter(caller(1), 1) {
                            assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two at once");
                            inside.fetch_sub(1, Ordering::SeqCst);
                            drop(pass);
                        }
                        drop(senders.enter(caller(2 + (number * 7 + round % 5) as u8), 1));
                    }
                });
            }
        });
    }
}
