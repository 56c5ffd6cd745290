//! Whose calls they are: each caller of the relay has a bound of its own, over all peers that it calls.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::id::Id;
use crate::net::lane::Lane;

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
pub(super) struct Senders(ArcSwap<HashMap<Sender, Arc<Lane>>>);

impl Senders {
    /// The lane of `sender`. Those on which nothing is under way go when a new one comes.
    pub(super) fn lane(&self, sender: Sender) -> Arc<Lane> {
        if let Some(lane) = self.0.load().get(&sender) {
            return Arc::clone(lane);
        }
        let new = Arc::new(Lane::default());
        self.0.rcu(|lanes| {
            let mut lanes: HashMap<_, _> =
                lanes.iter().filter(|(_, lane)| lane.running() > 0).map(|(sender, lane)| (*sender, Arc::clone(lane))).collect();
            lanes.entry(sender).or_insert_with(|| Arc::clone(&new));
            lanes
        });
        self.0.load().get(&sender).map_or(new, Arc::clone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sender_keeps_its_lane_while_calls_are_under_way_and_nobody_s_stays_for_ever() {
        let senders = Senders::default();
        let caller = |number| Sender::Caller(Id::from_bytes([number; 16]));
        let pass = senders.lane(caller(1)).try_enter(1).expect("it is free");
        drop(senders.lane(caller(2)));
        assert!(senders.lane(caller(1)).try_enter(1).is_none() && senders.lane(Sender::Anybody).try_enter(1).is_some());
        assert_eq!(senders.0.load().len(), 2, "the second has gone");
        drop(pass);
        drop(senders.lane(Sender::Operator));
        assert!(senders.0.load().len() == 1 && senders.lane(caller(1)).try_enter(1).is_some());
    }
}
