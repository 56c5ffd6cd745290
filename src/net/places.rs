//! How many connections there may be: each kind of listener has places of its own, and no address may have more than its share of them.
//!
//! Strangers who take all places of the public listeners take none of the relay's or the console's, and one stranger alone does not even fill
//! the public ones, where there are two or more. What counts is every connection, not only those that stay silent: one request makes a
//! connection look busy for as long as `limits.idle_timeout`, and costs nothing.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// One of those who share places has at most one in so many of them.
const SHARE: usize = 4;
/// One address has at least so many, where they are no more than half.
const LEAST_SHARE: usize = 16;

/// Whom a listener is for; connections to listeners for the same count together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Audience {
    /// Peers, apps and browsers anywhere: what is public, mutual TLS included.
    #[default]
    Public,
    /// The applications of this host, which call through the relay. They share one address and no fate with strangers.
    Applications,
    /// The console's browsers.
    Console,
    /// The admin socket: an operator gets in when nobody else does.
    Operators,
}

/// Why a connection has no place, and which it is of those that have none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Excess {
    /// All are taken.
    Full(usize),
    /// Those of its address are taken.
    Share(usize),
}

impl Excess {
    /// Which it is of those without a place, from 1.
    pub(super) fn number(self) -> usize {
        match self {
            Self::Full(number) | Self::Share(number) => number,
        }
    }
}

/// The places of all listeners.
#[derive(Debug, Default)]
pub(super) struct Places([Mutex<Taken>; 3]);

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_network: HashMap<IpAddr, usize>,
    /// Connections that have no place and are still told so. They take none from others meanwhile.
    without: usize,
}

/// A place, or that there is none; what it counts is free again when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    audience: Audience,
    network: Option<IpAddr>,
    is_without: bool,
}

/// How many of `all` places one of those who share them may have: a quarter, and where that is less than `least`, so many or half of all, whichever
/// is less. It is one at least, so where there is one place in all, whoever has it has all.
pub fn share(all: usize, least: usize) -> usize {
    (all / SHARE).max(least.min(all / 2)).max(1)
}

/// How many of `limit` places one address may have.
pub(super) fn of_address(limit: usize) -> usize {
    share(limit, LEAST_SHARE)
}

/// What counts as one address: of IPv6 the /64, which whoever has one of its addresses has as a whole.
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        address => address,
    }
}

impl Places {
    /// Takes a place for a connection from `address`, or from a process or a proxy, whose connections are many people's (`None`). What is beyond
    /// `limit` or its share has none, and is counted apart for as long as it takes to say so.
    pub(super) fn take(self: &Arc<Self>, audience: Audience, address: Option<IpAddr>, limit: usize) -> (Place, Option<Excess>) {
        let network = address.filter(|_| matches!(audience, Audience::Public | Audience::Console)).map(network);
        let place = |is_without| Place { places: Arc::clone(self), audience, network, is_without };
        let Some(mut taken) = self.taken(audience) else { return (place(false), None) };
        let of_one = network.and_then(|network| taken.by_network.get(&network).copied()).unwrap_or(0);
        let (is_full, is_over_share) = (taken.all >= limit, of_one >= of_address(limit));
        if is_full || is_over_share {
            taken.without += 1;
            let excess = if is_full { Excess::Full(taken.without) } else { Excess::Share(taken.without) };
            return (place(true), Some(excess));
        }
        taken.all += 1;
        if let Some(network) = network {
            *taken.by_network.entry(network).or_default() += 1;
        }
        (place(false), None)
    }

    /// Operators' connections are not counted.
    fn taken(&self, audience: Audience) -> Option<MutexGuard<'_, Taken>> {
        let [public, applications, console] = &self.0;
        let taken = match audience {
            Audience::Public => public,
            Audience::Applications => applications,
            Audience::Console => console,
            Audience::Operators => return None,
        };
        Some(taken.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(mut taken) = self.places.taken(self.audience) else { return };
        if self.is_without {
            taken.without -= 1;
            return;
        }
        taken.all -= 1;
        if let Some(network) = self.network
            && let Some(count) = taken.by_network.get_mut(&network)
        {
            *count -= 1;
            if *count == 0 {
                taken.by_network.remove(&network);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_has_a_quarter_and_of_few_places_half_at_most() {
        assert_eq!([0, 1, 2, 3, 16, 17, 31, 32, 64, 68, 10_000].map(of_address), [1, 1, 1, 1, 8, 8, 15, 16, 16, 17, 2_500]);
        assert_eq!([1, 2, 3, 4, 5, 8, 12, 312].map(|all| share(all, 2)), [1, 1, 1, 2, 2, 2, 3, 78]);
        for all in 2..200 {
            assert!((1..=16).all(|least| share(all, least) <= all / 2), "{all}");
        }
    }

    #[test]
    fn an_address_has_its_share_and_what_is_given_up_is_free() {
        let places = Arc::new(Places::default());
        let take = |address: &str| places.take(Audience::Public, address.parse().ok(), 100);
        let mut held = Vec::new();
        for number in 0..27 {
            let (place, excess) = take(&format!("2001:db8::{number}"));
            held.push(place);
            assert_eq!(excess, (number >= 25).then(|| Excess::Share(number - 24)), "{number}");
        }
        assert_eq!(take("2001:db8:0:1::1").1, None, "another /64");
        assert_eq!(take("").1, None, "a proxy");
        held.truncate(24);
        assert_eq!(take("::ffff:192.0.2.1").1, None);
        assert_eq!(take("2001:db8::1").1, None);
        held.extend((24..100).map(|_| take("").0));
        assert_eq!(take("192.0.2.1").1, Some(Excess::Full(1)));
        for audience in [Audience::Applications, Audience::Console, Audience::Operators] {
            assert_eq!(places.take(audience, None, 100).1, None, "{audience:?}");
        }
        drop(held);
        let taken = places.taken(Audience::Public).expect("they are counted");
        assert_eq!((taken.all, taken.by_network.len(), taken.without), (0, 0, 0));
    }

    #[test]
    fn who_is_refused_takes_no_place_from_others() {
        for limit in [2, 3, 4, 15, 16, 17, 31, 32, 64, 85, 176, 256] {
            let places = Arc::new(Places::default());
            let take = |address: &str| places.take(Audience::Public, address.parse().ok(), limit);
            let greedy: Vec<_> = (0..limit * 2).map(|_| take("192.0.2.1")).collect();
            assert_eq!(greedy.iter().filter(|(_, excess)| excess.is_none()).count(), of_address(limit), "{limit}");
            let others: Vec<_> = (of_address(limit)..limit).map(|_| take("")).collect();
            assert!(!others.is_empty() && others.iter().all(|(_, excess)| excess.is_none()), "{limit}");
            assert!(matches!(take("").1, Some(Excess::Full(_))), "{limit}");
            drop(greedy);
            assert_eq!(take("192.0.2.2").1, None, "{limit}");
        }
    }
}
