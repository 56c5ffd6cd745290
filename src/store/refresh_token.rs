//! Rows of refresh tokens: the facts that a refresh is judged by, and what a judgement writes.

use std::time::Duration;

use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::grant::ending::{self, why_over};
use super::rows::{moment, moment_columns};
use super::{Fault, Place, Seals, Transaction, access_token, grant};
use crate::clock::{Moment, Timestamp};
use crate::id::Id;
use crate::inbound::grant::Ended;
use crate::inbound::refresh::{Changes, Current, Facts, Mint, Repeat, Replaces, State, Token};
use crate::secret::{Digest, ExposeSecret, SecretString};

const FIND: &str = concat!(
    "SELECT g.id, g.app, g.user, g.scope, g.created_at, g.expires_at, g.ended_at, g.ended_why,
        iif(g.epoch = (SELECT epoch FROM meta), NULL, (SELECT coalesce(begun_at, g.created_at) FROM meta)), g.binding, g.made_by,
        t.generation, t.state, t.since_wall, t.since_boot, t.since_boot_id, t.remints, t.presented_from, t.repeat_sealed,
        c.generation, c.since_wall, c.since_boot, c.since_boot_id, c.used, u.login, ",
    why_over!(),
    " FROM refresh_token t
    JOIN grant g ON g.id = t.grant
    JOIN refresh_token c ON c.grant = t.grant AND c.state = 'current'
    JOIN ib_app a ON a.id = g.app
    LEFT JOIN user u ON u.id = g.user
    WHERE t.digest = ?1 AND a.purge_at IS NULL"
);
const OWNER: &str = "SELECT g.id, g.app FROM refresh_token t JOIN grant g ON g.id = t.grant JOIN ib_app a ON a.id = g.app
    WHERE t.digest = ?1 AND a.purge_at IS NULL";
const INSERT: &str = "INSERT INTO refresh_token
        (digest, grant, generation, state, since_wall, since_boot, since_boot_id, renewed_at, used, remints)
    VALUES (?1, ?2, ?3, 'current', ?4, ?5, ?6, ?4, ?7, 0)";
const PRESENTED: &str = "UPDATE refresh_token
    SET state = ?2, since_wall = ?3, since_boot = ?4, since_boot_id = ?5, remints = ?6,
        presented_from = coalesce(presented_from, ?7), repeat_sealed = ?8, used = 1
    WHERE digest = ?1";
const PRESENTED_AGAIN: &str = "UPDATE refresh_token SET remints = ?2, presented_from = coalesce(presented_from, ?3), repeat_sealed = ?4
    WHERE digest = ?1";
const MOVE: &str = "UPDATE refresh_token
    SET state = ?3, since_wall = ?4, since_boot = ?5, since_boot_id = ?6, repeat_sealed = NULL
    WHERE grant = ?1 AND state = ?2";
const REPEAT: &str = "UPDATE refresh_token SET repeat_sealed = ?2 WHERE digest = ?1";
const RENEWED: &str = "UPDATE refresh_token SET since_wall = ?2, since_boot = ?3, since_boot_id = ?4, renewed_at = ?2, used = 1
    WHERE digest = ?1";
const USED: &str = "UPDATE refresh_token SET used = 1 WHERE grant = ?1 AND state = 'current' AND generation = ?2 AND used = 0";
const WITH_REPEAT: &str = "SELECT t.digest, c.since_wall, c.since_boot, c.since_boot_id
    FROM refresh_token t JOIN refresh_token c ON c.grant = t.grant AND c.state = 'current'
    WHERE t.repeat_sealed IS NOT NULL ORDER BY t.since_wall LIMIT ?1";

/// The facts about the refresh token `presented`, and the login of who allowed its grant; nothing when it never was ours. A grant that is over and
/// that nobody has ended yet ([`why_over`]) has ended by now: when exactly its row says once it is ended.
pub fn find(transaction: &Transaction<'_>, seals: &Seals, presented: &SecretString) -> Result<Option<(Facts, Option<String>)>, Fault> {
    let digest = Digest::of(presented.expose_secret());
    let found = transaction.prepare_cached(FIND)?.query_row([digest], |row| {
        let token = Token {
            generation: row.get(11)?,
            state: row.get(12)?,
            since: moment(row, 13)?,
            remints: row.get(16)?,
            presented_from: row.get(17)?,
        };
        let current = Current { generation: row.get(19)?, since: moment(row, 20)?, is_used: row.get(23)? };
        let mut grant = grant::read(row, 0)?;
        if let (None, Some(reason)) = (grant.ended, ending::why(row, 25)?) {
            grant.ended = Some(Ended { at: transaction.now().wall, reason });
        }
        let facts = Facts { grant, presented: token, current, repeat: None };
        Ok((facts, row.get::<_, Option<Vec<u8>>>(18)?, row.get(24)?))
    });
    let Some((mut facts, sealed, login)) = found.optional()? else { return Ok(None) };
    if let Some(sealed) = sealed {
        facts.repeat = Some(open_repeat(seals, presented, digest, &facts, &sealed)?);
    }
    Ok(Some((facts, login)))
}

/// The grant and the app that a refresh token was issued to, at whatever state.
pub fn owner(connection: &Connection, digest: Digest) -> Result<Option<(Id, Id)>, Fault> {
    Ok(connection.prepare_cached(OWNER)?.query_row([digest], |row| Ok((row.get(0)?, row.get(1)?))).optional()?)
}

/// A refresh token that was presented and judged.
#[derive(Clone, Copy, Debug)]
pub struct Presented<'a> {
    /// The token.
    pub token: &'a SecretString,
    /// Its grant.
    pub grant: Id,
    /// The address that presents it, where it is known.
    pub from: Option<&'a str>,
}

/// Writes what was judged of a refresh token. `successor` is the token that a mint hands out, which lives for `idle` without use.
pub fn apply(
    transaction: &Transaction<'_>,
    seals: &Seals,
    presented: Presented<'_>,
    changes: &Changes,
    successor: &SecretString,
    idle: Duration,
) -> Result<(), Fault> {
    let digest = Digest::of(presented.token.expose_secret());
    let id = presented.grant;
    match changes {
        Changes::Nothing => Ok(()),
        Changes::End(reason) => grant::end(transaction, id, *reason).map(drop),
        Changes::Renew(access) => {
            let [wall, boot, boot_id] = moment_columns(&transaction.now());
            let retire = params![id, State::Previous, State::Retired, wall, boot, boot_id];
            transaction.prepare_cached(MOVE)?.execute(retire)?;
            transaction.prepare_cached(RENEWED)?.execute(params![digest, wall, boot, boot_id])?;
            access_token::insert(transaction, id, access)?;
            grant::lives_on(transaction, id, idle)
        }
        Changes::ReplaceAccess { access, repeat } => {
            let sealed = seal_repeat(seals, presented, digest, access.generation, repeat);
            transaction.prepare_cached(REPEAT)?.execute(params![digest, sealed])?;
            access_token::insert(transaction, id, access)
        }
        Changes::Mint(mint) => {
            let sealed = mint.repeat.as_ref().map(|repeat| seal_repeat(seals, presented, digest, mint.access.generation, repeat));
            move_aside(transaction, presented, digest, mint, sealed)?;
            insert(transaction, id, Digest::of(successor.expose_secret()), mint.access.generation, false)?;
            access_token::insert(transaction, id, &mint.access)?;
            grant::lives_on(transaction, id, idle)
        }
    }
}

/// Adds a grant's current refresh token, minted now. `is_used` where no predecessor is ever judged by it.
pub fn insert(transaction: &Transaction<'_>, grant: Id, digest: Digest, generation: u32, is_used: bool) -> Result<(), Fault> {
    let [wall, boot, boot_id] = moment_columns(&transaction.now());
    transaction.prepare_cached(INSERT)?.execute(params![digest, grant, generation, wall, boot, boot_id, is_used])?;
    Ok(())
}

/// Notes that the pair of the grant's current refresh token has arrived: one of the two was presented.
pub fn arrived(transaction: &Transaction<'_>, grant: Id, generation: u32) -> Result<(), Fault> {
    transaction.prepare_cached(USED)?.execute(params![grant, generation])?;
    Ok(())
}

/// Overwrites the kept answers whose window has closed; how many there were, at most `most`.
pub fn forget_repeats(transaction: &Transaction<'_>, retry_window: Duration, most: u32) -> Result<usize, Fault> {
    let now = transaction.now();
    let mut statement = transaction.prepare_cached(WITH_REPEAT)?;
    let kept = statement.query_map([most], |row| Ok((row.get::<_, Digest>(0)?, moment(row, 1)?)))?;
    let kept: Vec<(Digest, Moment)> = kept.collect::<Result<_, _>>()?;
    let mut overwrite = transaction.prepare_cached(REPEAT)?;
    let mut forgotten = 0;
    for (digest, _) in kept.iter().filter(|(_, opened)| now.age_of(opened) >= retry_window) {
        forgotten += overwrite.execute(params![digest, None::<Vec<u8>>])?;
    }
    Ok(forgotten)
}

/// The statements of a mint that change tokens which exist. The new current one comes after them: a grant has one at a time.
fn move_aside(
    transaction: &Transaction<'_>,
    presented: Presented<'_>,
    digest: Digest,
    mint: &Mint,
    sealed: Option<Vec<u8>>,
) -> Result<(), Fault> {
    let Presented { grant, from, .. } = presented;
    let [wall, boot, boot_id] = moment_columns(&transaction.now());
    match mint.replaces {
        Replaces::Previous => {
            let retire = params![grant, State::Previous, State::Retired, wall, boot, boot_id];
            transaction.prepare_cached(MOVE)?.execute(retire)?;
            let becomes = params![digest, mint.presented_becomes, wall, boot, boot_id, mint.remints, from, sealed];
            transaction.prepare_cached(PRESENTED)?.execute(becomes)?;
        }
        Replaces::Current => {
            access_token::end_generation(transaction, grant, mint.access.generation - 1)?;
            let withdraw = params![grant, State::Current, State::Withdrawn, wall, boot, boot_id];
            transaction.prepare_cached(MOVE)?.execute(withdraw)?;
            transaction.prepare_cached(PRESENTED_AGAIN)?.execute(params![digest, mint.remints, from, sealed])?;
        }
    }
    if mint.ends_earlier_access {
        access_token::end_before(transaction, grant, mint.access.generation)?;
    }
    Ok(())
}

/// What is sealed of a [`Repeat`].
#[derive(Serialize, Deserialize)]
struct Kept<'a> {
    refresh: &'a str,
    access: &'a str,
    scope: String,
    issued_at: i64,
    expires_at: i64,
    /// What the access token is bound to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    binding: Option<String>,
}

fn seal_repeat(seals: &Seals, presented: Presented<'_>, digest: Digest, generation: u32, repeat: &Repeat) -> Vec<u8> {
    let kept = Kept {
        refresh: repeat.refresh.expose_secret(),
        access: repeat.access.expose_secret(),
        scope: repeat.scope.to_string(),
        issued_at: repeat.issued_at.millis(),
        expires_at: repeat.expires_at.millis(),
        binding: repeat.binding.map(|binding| binding.to_string()),
    };
    let text = Zeroizing::new(serde_json::to_vec(&kept).expect("texts and numbers serialize"));
    let generation = generation.to_be_bytes();
    let bound = [presented.token.expose_secret().as_bytes(), presented.grant.as_bytes(), &generation];
    seals.seal_bound(place(&digest), &bound, &text)
}

fn open_repeat(seals: &Seals, presented: &SecretString, digest: Digest, facts: &Facts, sealed: &[u8]) -> Result<Repeat, Fault> {
    let generation = facts.current.generation.to_be_bytes();
    let bound = [presented.expose_secret().as_bytes(), facts.grant.id.as_bytes(), &generation];
    let text = seals.open_bound(place(&digest), &bound, sealed)?;
    let corrupt = |what: &str| Fault::Corrupt { table: "refresh_token", what: what.to_owned() };
    let kept: Kept<'_> = serde_json::from_slice(&text).map_err(|_| corrupt("a kept answer is not one"))?;
    Ok(Repeat {
        refresh: SecretString::from(kept.refresh),
        access: SecretString::from(kept.access),
        scope: kept.scope.parse().map_err(|_| corrupt("a kept answer has no scope"))?,
        issued_at: Timestamp::from_millis(kept.issued_at),
        expires_at: Timestamp::from_millis(kept.expires_at),
        binding: kept
            .binding
            .map(|text| text.parse().map_err(|_| corrupt("a kept answer is bound to nothing that there is")))
            .transpose()?,
    })
}

fn place(digest: &Digest) -> Place<'_> {
    Place { table: "refresh_token", column: "repeat_sealed", row: digest.as_bytes() }
}

impl ToSql for State {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self {
            Self::Current => "current",
            Self::Previous => "previous",
            Self::Retired => "retired",
            Self::Withdrawn => "withdrawn",
        }
        .into())
    }
}

impl FromSql for State {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        match value.as_str()? {
            "current" => Ok(Self::Current),
            "previous" => Ok(Self::Previous),
            "retired" => Ok(Self::Retired),
            "withdrawn" => Ok(Self::Withdrawn),
            _ => Err(FromSqlError::InvalidType),
        }
    }
}

#[cfg(test)]
mod tests;
