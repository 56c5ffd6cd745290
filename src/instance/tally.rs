//! What strangers and misbehaving apps can cause as often as they like, for the audit: the first of a kind is a row at once, the rest of an
//! hour are one row with their number. So nobody fills the disk, or hides something among a million rows.
//!
//! A kind is an action by an actor on a record from a network. There are [`MOST`] of them at a time. What comes beyond is counted without its
//! network where the actor or the record is known to us, so that no crowd of strangers hides who did something, or to what; of those kinds there are
//! [`MOST`] too, and all else is counted by action alone. That bounds the rows of an hour, whatever is sent.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::throttle::network;
use crate::audit::{Action, Actor, Entry, Origin};
use crate::clock::{Moment, Timestamp};

/// How long what is alike is counted together.
pub const WINDOW: Duration = Duration::from_secs(60 * 60);

/// Kinds that are told apart at a time.
const MOST: usize = 128;

/// What was noted and is not in the audit yet. Cheap to share.
#[derive(Debug, Default)]
pub struct Tally {
    counts: Mutex<BTreeMap<Kind, Count>>,
    noted: Notify,
}

/// What is counted together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Kind {
    action: Action,
    who: Who,
}

/// By whom, to what, and from where, as far as that is told apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Who {
    From { what: What, network: Option<IpAddr> },
    FromAnywhere(What),
    Anybody,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct What {
    actor: String,
    record: Option<(&'static str, String)>,
    apart: Option<String>,
}

impl Who {
    /// Whether both are told apart as far.
    fn is_like(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

#[derive(Debug)]
struct Count {
    since: Moment,
    last_at: Timestamp,
    times: u64,
    /// How many of them are in the audit.
    told: u64,
    origin: Arc<Origin>,
    entry: Entry,
}

/// A row that is due.
#[derive(Debug)]
pub struct Due {
    kind: Kind,
    times: u64,
    is_over: bool,
    /// Where it came from.
    pub origin: Arc<Origin>,
    /// What it is to say.
    pub entry: Entry,
}

impl Tally {
    /// Notes that something happened. Its row is written soon.
    pub fn note(&self, now: Moment, origin: Origin, entry: Entry) {
        let action = entry.action;
        let is_known = origin.actor != Actor::Unknown || entry.record.is_some();
        let record = entry.record.as_ref().map(|record| (record.kind, record.id.clone()));
        let what = What { actor: origin.actor.to_string(), record, apart: entry.apart.clone() };
        let mut counts = self.counts();
        let has_room = |who: &Who| {
            let is_there = counts.contains_key(&Kind { action, who: who.clone() });
            is_there || counts.keys().filter(|kind| kind.who.is_like(who)).count() < MOST
        };
        let full = Who::From { what: what.clone(), network: network(origin.address) };
        let anywhere = Who::FromAnywhere(what);
        let (who, origin, entry) = if has_room(&full) {
            (full, origin, entry)
        } else if is_known && has_room(&anywhere) {
            (anywhere, Origin::new(origin.actor, None, None), entry.with("several", true))
        } else {
            let crowd = Entry::of(action).ended(entry.outcome).with("several", true);
            (Who::Anybody, Origin::new(Actor::Unknown, None, None), crowd)
        };
        let kind = Kind { action, who };
        let first = || Count { since: now, last_at: now.wall, times: 0, told: 0, origin: Arc::new(origin), entry: entry.clone() };
        let count = counts.entry(kind).or_insert_with(first);
        // The first is told as it was; of the rest, what it has in common with them.
        if count.told > 0 {
            count.entry.keep_what_is_said_by(&entry);
        }
        count.times += 1;
        count.last_at = now.wall;
        let is_first = count.times == 1;
        drop(counts);
        if is_first {
            self.noted.notify_one();
        }
    }

    /// Completes when there is something new to write.
    pub async fn noted(&self) {
        self.noted.notified().await;
    }

    /// The rows that are due: what is new, and the number of what is over. With `all`, as at a stop, everything counts as over.
    pub fn due(&self, now: &Moment, all: bool) -> Vec<Due> {
        let counts = self.counts();
        let due = counts.iter().filter_map(|(kind, count)| {
            let is_over = all || now.age_of(&count.since) >= WINDOW;
            let is_news = count.told == 0 || (is_over && count.times > count.told);
            let mut entry = count.entry.clone();
            if count.told > 0 {
                let since = count.since.wall.to_string();
                entry = entry.with("times", count.times - count.told).with("since", since).at("last_at", count.last_at);
            } else if count.times > 1 {
                entry = entry.with("times", count.times);
            }
            let due = Due { kind: kind.clone(), times: count.times, is_over, origin: Arc::clone(&count.origin), entry };
            (is_news || is_over).then_some((is_news, due))
        });
        // What is over and has been told whole is only to be forgotten; it needs no row.
        let (rows, over): (Vec<_>, Vec<_>) = due.partition(|(is_news, _)| *is_news);
        drop(counts);
        self.told(&over.into_iter().map(|(_, due)| due).collect::<Vec<_>>());
        rows.into_iter().map(|(_, due)| due).collect()
    }

    /// What was due is in the audit.
    pub fn told(&self, due: &[Due]) {
        let mut counts = self.counts();
        for due in due {
            let Some(count) = counts.get_mut(&due.kind) else { continue };
            count.told = due.times;
            if due.is_over && count.times == count.told {
                counts.remove(&due.kind);
            }
        }
    }

    fn counts(&self) -> MutexGuard<'_, BTreeMap<Kind, Count>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::{Outcome, Record};
    use crate::clock::BootId;

    fn at(seconds: u64) -> Moment {
        let wall = Timestamp::default().plus(Duration::from_secs(seconds));
        Moment { wall, boot: Duration::from_secs(seconds), boot_id: BootId(1) }
    }

    fn fails(tally: &Tally, second: u64, login: Option<&str>, from: &str) {
        let record = login.map(|login| Record::of_instance("user", login, login));
        let entry = Entry::of(Action::LogInFailed).ended(Outcome::Refused).on_known(record);
        tally.note(at(second), Origin::new(Actor::Unknown, from.parse().ok(), None), entry);
    }

    fn written(tally: &Tally, second: u64) -> Vec<String> {
        let due = tally.due(&at(second), false);
        tally.told(&due);
        due.iter().map(|due| due.entry.details(&[])).collect()
    }

    #[test]
    fn the_first_is_a_row_at_once_and_the_rest_of_an_hour_is_one() {
        let tally = Tally::default();
        fails(&tally, 0, Some("a"), "192.0.2.1");
        assert_eq!(written(&tally, 1), ["{}"]);
        for second in 2..100 {
            fails(&tally, second, Some("a"), "192.0.2.1");
        }
        fails(&tally, 100, Some("b"), "192.0.2.1");
        assert_eq!(written(&tally, 101), ["{}"], "another record is another kind");
        let rest = written(&tally, 3_600);
        assert_eq!(rest, [r#"{"last_at":"1970-01-01T00:01:39Z","since":"1970-01-01T00:00:00Z","times":98}"#]);
        assert_eq!(written(&tally, 3_700), Vec::<String>::new(), "and what came alone has its row already");
        fails(&tally, 3_701, Some("a"), "192.0.2.1");
        assert_eq!(written(&tally, 3_701), ["{}"], "another hour begins");
    }

    #[test]
    fn whatever_is_sent_the_rows_are_few() {
        let tally = Tally::default();
        let mut rows = 0;
        for number in 0..5_000_u32 {
            fails(&tally, u64::from(number) / 100, None, &std::net::Ipv4Addr::from(number).to_string());
            rows += written(&tally, u64::from(number) / 100).len();
        }
        assert_eq!(rows, MOST + 1);
        let rest = written(&tally, 5_000);
        assert_eq!(rest.len(), 1, "each came once but for the crowd: {rest:?}");
        assert!(rest[0].contains(&format!("\"times\":{}", 5_000 - MOST - 1)), "{rest:?}");
    }

    #[test]
    fn no_crowd_hides_who_or_what_is_known() {
        let tally = Tally::default();
        for number in 0..1_000_u32 {
            fails(&tally, 0, None, &std::net::Ipv4Addr::from(number).to_string());
        }
        let rows = |tally: &Tally| {
            let due = tally.due(&at(1), false);
            tally.told(&due);
            due.into_iter()
                .map(|due| (due.origin.actor.to_string(), due.origin.address, due.entry.record.map(|record| record.id)))
                .collect()
        };
        let first: Vec<_> = rows(&tally);
        assert_eq!(first.len(), MOST + 1);
        fails(&tally, 0, Some("a"), "203.0.113.1");
        fails(&tally, 0, Some("a"), "203.0.113.2");
        let known = Actor::Client { client_id: "shop".to_owned() };
        tally.note(at(0), Origin::new(known, None, None), Entry::of(Action::RevocationOfAnotherClient));
        let told: Vec<(String, Option<IpAddr>, Option<String>)> = rows(&tally);
        assert_eq!(told, [("unknown".to_owned(), None, Some("a".to_owned())), ("shop".to_owned(), None, None)]);
        // And these have a bound of their own.
        for number in 0..1_000 {
            fails(&tally, 0, Some(&number.to_string()), "203.0.113.1");
        }
        assert!(rows(&tally).len() <= MOST, "no more kinds than that");
    }

    #[test]
    fn what_is_told_apart_is_a_row_of_its_own() {
        let tally = Tally::default();
        for request in ["GET roles", "POST users", "GET roles"] {
            let actor = Actor::ApiKey { login: "a".to_owned() };
            tally.note(at(0), Origin::new(actor, None, None), Entry::of(Action::AdminDenied).apart_by(request).with("request", request));
        }
        assert_eq!(written(&tally, 1), [r#"{"request":"GET roles","times":2}"#, r#"{"request":"POST users"}"#]);
    }

    #[test]
    fn the_rest_is_told_with_what_it_has_in_common_with_the_first() {
        let tally = Tally::default();
        let claims = |claimed: &str| {
            let entry = Entry::of(Action::ClientFailed).with("claimed_client_id", claimed).with("reason", "unknown");
            tally.note(at(0), Origin::new(Actor::Unknown, None, None), entry);
        };
        claims("shop");
        assert_eq!(written(&tally, 1), [r#"{"claimed_client_id":"shop","reason":"unknown"}"#]);
        claims("shop");
        claims("stop");
        let rest = written(&tally, 3_600);
        assert!(rest.len() == 1 && !rest[0].contains("claimed") && rest[0].contains(r#""reason":"unknown""#), "{rest:?}");
    }

    #[test]
    fn what_was_not_written_is_due_again_and_a_stop_tells_everything() {
        let tally = Tally::default();
        fails(&tally, 0, Some("a"), "192.0.2.1");
        assert_eq!((tally.due(&at(1), false).len(), tally.due(&at(1), false).len()), (1, 1));
        assert_eq!(written(&tally, 1), ["{}"]);
        fails(&tally, 2, Some("a"), "192.0.2.1");
        let due = tally.due(&at(3), true);
        tally.told(&due);
        assert_eq!(due.len(), 1);
        assert!(tally.due(&at(9_999), true).is_empty());
    }
}
