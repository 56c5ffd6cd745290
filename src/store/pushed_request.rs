//! Rows of pushed authorization requests (RFC 9126): handed in by an app, asked in a browser, decided once.

use std::net::IpAddr;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};

use super::{Fault, Place, Seals, Transaction};
use crate::clock::Timestamp;
use crate::id::Id;
use crate::inbound::consent::Authorization;
use crate::inbound::pushed::Pushed;
use crate::oauth::thumbprint::KeyThumbprint;
use crate::secret::{Digest, ExposeSecret};

/// How long one that is over is still known, so that it is told from one that never was.
const KEPT_AFTER_END: Duration = Duration::from_secs(60 * 60);

/// Requests that one app may have, those that are over among them. Of one more, see [`insert`].
const MOST: u32 = 1_000;

/// Requests of one app that are kept for one person who is asked them: as many as one browser may have questions open.
const KEPT_FOR_A_PERSON: u32 = 16;

const INSERT: &str = "INSERT INTO pushed_request
    (digest, app, parameters_sealed, dpop_key, epoch, decided, expires_at, purge_at, pushed_from)
    VALUES (?1, ?2, ?3, ?4, (SELECT epoch FROM meta), 0, ?5, ?6, ?7)";
const COUNT: &str = "SELECT count(*) FROM pushed_request WHERE app = ?1";
const DROP_OVER: &str = "DELETE FROM pushed_request WHERE digest IN
    (SELECT digest FROM pushed_request WHERE app = ?1 AND (decided = 1 OR expires_at <= ?2) ORDER BY expires_at LIMIT ?3)";
const DROP_OF_MOST: &str = "DELETE FROM pushed_request WHERE digest =
    (SELECT digest FROM pushed_request WHERE app = ?1 AND question IS NULL AND pushed_from IS
        (SELECT pushed_from FROM pushed_request WHERE app = ?1 AND question IS NULL
            GROUP BY pushed_from ORDER BY count(*) DESC, min(expires_at) LIMIT 1)
        ORDER BY expires_at LIMIT 1)";
const IS_THERE: &str = "SELECT 1 FROM pushed_request WHERE digest = ?1";
const FIND: &str = "SELECT app, parameters_sealed, dpop_key, decided, expires_at FROM pushed_request
    WHERE digest = ?1 AND epoch = (SELECT epoch FROM meta)";
const ROOM_AT: &str = "SELECT min(expires_at) FROM pushed_request WHERE app = ?1";
const OPEN: &str = "UPDATE pushed_request SET question = ?2 WHERE digest = ?1";
const LIMIT_OPEN: &str = "UPDATE pushed_request SET question = NULL WHERE digest IN
    (SELECT p.digest FROM pushed_request p JOIN authorization a ON a.id = p.question
        WHERE p.app = ?1 AND p.question IS NOT NULL AND p.decided = 0 AND a.user = ?2 ORDER BY p.question DESC LIMIT -1 OFFSET ?3)";
const DECIDE: &str = "UPDATE pushed_request SET decided = 1 WHERE digest = ?1 AND decided = 0 AND epoch = (SELECT epoch FROM meta)";

/// An app has as many requests as it may have, and all of them are kept for people who are asked them now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full {
    /// When the first of them is over.
    pub until: Timestamp,
}

/// Adds a request that came from the network `from`, where that is known, or tells that there is no room for it.
///
/// Where its app has more than [`MOST`], what is over goes first; then, of the network that most of the others come from, the oldest. So
/// whoever pushes in the name of an app that anybody can claim to be pushes out his own, and not what others wait for, until he has as many
/// networks as the app has requests. What is kept for somebody ([`keep_for`]) stays in any case.
pub fn insert(
    transaction: &Transaction<'_>,
    seals: &Seals,
    digest: Digest,
    pushed: &Pushed,
    from: Option<IpAddr>,
) -> Result<Result<(), Full>, Fault> {
    let sealed = seals.seal(place(&digest), pushed.parameters.expose_secret().as_bytes());
    let (dpop_key, from) = (pushed.dpop_key.map(|key| key.to_string()), from.map(|network| network.to_string()));
    let row = params![digest, pushed.app, sealed, dpop_key, pushed.expires_at, pushed.expires_at.plus(KEPT_AFTER_END), from];
    transaction.prepare_cached(INSERT)?.execute(row)?;
    let count: u32 = transaction.prepare_cached(COUNT)?.query_row([pushed.app], |row| row.get(0))?;
    let Some(more) = count.checked_sub(MOST).filter(|more| *more > 0) else { return Ok(Ok(())) };
    let over = transaction.prepare_cached(DROP_OVER)?.execute(params![pushed.app, transaction.now().wall, more])?;
    for _ in over..more as usize {
        transaction.prepare_cached(DROP_OF_MOST)?.execute([pushed.app])?;
    }
    if transaction.prepare_cached(IS_THERE)?.exists([digest])? {
        return Ok(Ok(()));
    }
    Ok(Err(Full { until: transaction.prepare_cached(ROOM_AT)?.query_row([pushed.app], |row| row.get(0))? }))
}

/// Keeps the request behind a question for whoever is asked it, and may allow it, as long as the question is there: until it goes for a newer one
/// of the same browser. Whoever opens more and more of an app keeps the newest [`KEPT_FOR_A_PERSON`] from others, and not all that it may have.
pub fn keep_for(transaction: &Transaction<'_>, question: &Authorization) -> Result<(), Fault> {
    let Some(digest) = question.pushed else { return Ok(()) };
    transaction.prepare_cached(OPEN)?.execute(params![digest, question.id])?;
    transaction.prepare_cached(LIMIT_OPEN)?.execute(params![question.app, question.user, KEPT_FOR_A_PERSON])?;
    Ok(())
}

/// The request that a reference with that digest names, whether or not it may still be asked.
pub fn find(connection: &Connection, seals: &Seals, digest: Digest) -> Result<Option<Pushed>, Fault> {
    let read = connection.prepare_cached(FIND)?.query_row([digest], |row| {
        let columns: (Id, Vec<u8>, Option<String>, bool, Timestamp) = (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?);
        Ok(columns)
    });
    let Some((app, sealed, dpop_key, is_decided, expires_at)) = read.optional()? else { return Ok(None) };
    let corrupt = || super::corrupt("pushed_request", "dpop_key");
    let dpop_key = dpop_key.map(|text| KeyThumbprint::from_text(&text).ok_or_else(corrupt)).transpose()?;
    Ok(Some(Pushed { app, parameters: seals.open_text(place(&digest), &sealed)?, dpop_key, is_decided, expires_at }))
}

/// Takes the one decision that a request allows; false when it was taken before.
pub fn decide(transaction: &Transaction<'_>, digest: Digest) -> Result<bool, Fault> {
    Ok(transaction.prepare_cached(DECIDE)?.execute([digest])? == 1)
}

const fn place(digest: &Digest) -> Place<'_> {
    Place { table: "pushed_request", column: "parameters_sealed", row: digest.as_bytes() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inbound::authorize::{Destination, Request};
    use crate::inbound::consent::Stage;
    use crate::inbound::user::User;
    use crate::store::sample::linked;
    use crate::store::{authorization, sample, temporary, user};

    #[tokio::test]
    async fn d5_a_pushed_request_is_sealed_and_decided_once() {
        let (_directory, store) = temporary();
        linked(&store).await;
        let (digest, seals) = (Digest::of("reference"), store.seals().clone());
        let pushed = Pushed {
            app: sample::app().id,
            parameters: "client_id=client-one&state=p2ph_of_the_client".into(),
            dpop_key: Some(KeyThumbprint::of_canonical("x")),
            is_decided: false,
            expires_at: Timestamp::from_millis(5_000),
        };
        let judge = move |transaction: &Transaction<'_>| {
            assert_eq!(insert(transaction, &seals, digest, &pushed, None)?, Ok(()));
            let found = find(transaction, &seals, digest)?.expect("it was pushed");
            assert_eq!(found.parameters.expose_secret(), pushed.parameters.expose_secret());
            assert_eq!(
                (found.app, found.dpop_key, found.is_decided, found.expires_at),
                (pushed.app, pushed.dpop_key, false, pushed.expires_at)
            );
            assert!(decide(transaction, digest)? && !decide(transaction, digest)?);
            assert!(find(transaction, &seals, digest)?.expect("still known").is_decided);
            let sealed: Vec<u8> = transaction.query_row("SELECT parameters_sealed FROM pushed_request", [], |row| row.get(0))?;
            assert!(!sealed.windows(5).any(|window| window == b"p2ph_"));
            Ok(())
        };
        store.write(judge).await.expect("written");
    }

    /// Somebody's question `number`, of the pushed request `pushed`.
    fn question(number: u128, user: Id, pushed: Digest) -> Authorization {
        let destination = Destination { redirect_uri: "https://one.example/cb".to_owned(), state: None, is_named: true };
        Authorization {
            id: Id::from_bytes(number.to_be_bytes()),
            app: sample::app().id,
            user,
            session: Digest::of(&format!("session {}", number / 10)),
            request: Request { destination, scope: sample::app().scope, challenge: None, dpop_key: None },
            pushed: Some(pushed),
            stage: Stage::Pending { until: UNTIL },
        }
    }

    const UNTIL: Timestamp = Timestamp::from_millis(4_000_000_000_000);

    fn ask(transaction: &Transaction<'_>, seals: &Seals, number: u128, user: Id, pushed: Digest) -> Result<(), Fault> {
        let question = question(number, user, pushed);
        authorization::insert(transaction, seals, &question, UNTIL)?;
        keep_for(transaction, &question)
    }

    fn kept(transaction: &Transaction<'_>) -> Result<Vec<Digest>, Fault> {
        let mut statement = transaction.prepare("SELECT digest FROM pushed_request WHERE question IS NOT NULL ORDER BY question")?;
        Ok(statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?)
    }

    fn pushed(transaction: &Transaction<'_>, more: u64) -> Pushed {
        let expires_at = transaction.now().wall.plus(Duration::from_secs(60 + more));
        Pushed { app: sample::app().id, parameters: "".into(), dpop_key: None, is_decided: false, expires_at }
    }

    /// Who comes from eleven networks, a hundred requests each.
    #[tokio::test]
    async fn d5_who_pushes_most_pushes_out_his_own() {
        let (_directory, store) = temporary();
        linked(&store).await;
        let seals = store.seals().clone();
        let judge = move |transaction: &Transaction<'_>| {
            let network = |number: u32| Some(IpAddr::from(std::net::Ipv4Addr::from(number)));
            let push =
                |name: &str, more: u64, from: u32| insert(transaction, &seals, Digest::of(name), &pushed(transaction, more), network(from));
            let (waiting, asked) = (Digest::of("waiting"), Digest::of("asked"));
            assert_eq!((push("waiting", 0, 99)?, push("asked", 0, 1)?), (Ok(()), Ok(())));
            ask(transaction, &seals, 1, sample::person().id, asked)?;
            for number in 0..2 * MOST {
                assert_eq!(push(&format!("flood {number}"), number.into(), number % 11)?, Ok(()), "the newest has its turn");
            }
            let known = |digest| Ok::<_, Fault>(find(transaction, &seals, digest)?.is_some());
            assert!(known(waiting)?, "it was the oldest of all, and alone in its network");
            assert!(known(asked)?, "somebody looks at it");
            let count: u32 = transaction.query_row("SELECT count(*) FROM pushed_request", [], |row| row.get(0))?;
            assert_eq!(count, MOST);
            // Each from a network of its own: the oldest go, but not what somebody looks at.
            for number in 0..MOST {
                assert_eq!(push(&format!("new {number}"), 9_000, 1_000 + number)?, Ok(()));
            }
            assert!(!known(waiting)? && known(asked)?);
            transaction.execute("UPDATE pushed_request SET question = ?1", [question(1, sample::person().id, asked).id])?;
            let full = push("late", 0, 7)?;
            assert_eq!(full, Err(Full { until: pushed(transaction, 0).expires_at }), "all others are looked at, until the first is over");
            assert!(decide(transaction, asked)? && push("later", 0, 7)? == Ok(()));
            assert!(!known(asked)?, "what is over makes room");
            Ok(())
        };
        store.write(judge).await.expect("written");
    }

    #[tokio::test]
    async fn d5_what_is_kept_for_somebody_is_let_go_with_its_question_and_for_newer_ones() {
        let (_directory, store) = temporary();
        linked(&store).await;
        let seals = store.seals().clone();
        let judge = move |transaction: &Transaction<'_>| {
            let (one, two) =
                (sample::person(), User { id: Id::from_bytes([7; 16]), login: "two@two.example".to_owned(), ..sample::person() });
            user::insert(transaction, &two)?;
            let of = |number: u128| Digest::of(&format!("request {number}"));
            for number in 1..=40 {
                insert(transaction, &seals, of(number), &pushed(transaction, 0), None)?.expect("there is room");
                ask(transaction, &seals, number, if number == 3 { two.id } else { one.id }, of(number))?;
            }
            let newest = (25..=40).map(of);
            assert_eq!(kept(transaction)?, [of(3)].into_iter().chain(newest.clone()).collect::<Vec<_>>(), "the other person's stays");
            // The same page again, and one that was answered, take no more of the share.
            ask(transaction, &seals, 50, one.id, of(40))?;
            assert!(decide(transaction, of(39))?);
            insert(transaction, &seals, of(60), &pushed(transaction, 0), None)?.expect("there is room");
            ask(transaction, &seals, 60, one.id, of(60))?;
            assert_eq!(kept(transaction)?, [of(3)].into_iter().chain(newest).chain([of(60)]).collect::<Vec<_>>());
            // Of one browser the oldest questions go, and what was kept for them.
            for number in 100..120 {
                insert(transaction, &seals, of(number), &pushed(transaction, 0), None)?.expect("there is room");
                let question = Authorization { session: Digest::of("one browser"), ..question(number, two.id, of(number)) };
                authorization::insert(transaction, &seals, &question, UNTIL)?;
                keep_for(transaction, &question)?;
            }
            assert!(!kept(transaction)?.contains(&of(103)) && kept(transaction)?.contains(&of(104)));
            transaction.execute("DELETE FROM authorization WHERE user = ?1", [two.id])?;
            assert!(!kept(transaction)?.contains(&of(119)) && kept(transaction)?.contains(&of(60)));
            assert!(find(transaction, &seals, of(119))?.is_some(), "it is there until others need its place");
            Ok(())
        };
        store.write(judge).await.expect("written");
    }
}
