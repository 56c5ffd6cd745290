//! Rows of peers.

use rusqlite::{Connection, OptionalExtension, Row, params};
use url::Url;

use super::rows::json;
use super::{Fault, Place, Seals, Transaction};
use crate::clock::Timestamp;
use crate::id::Id;
use crate::outbound::metadata::Metadata;
use crate::outbound::peer::{Auth, Maintenance, Peer, PeerTrust, User};
use crate::secret::ExposeSecret;

const TABLE: &str = "peer";
const INSERT: &str = "INSERT INTO peer (id, tenant, name, url, base_url, auth, ob_app, user_name, password_sealed, ca, pin,
    maintenance_since, maintenance_until, created_at, generation, guarded)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16) ON CONFLICT (tenant, name) DO NOTHING";
const UPDATE: &str =
    "UPDATE peer SET name = ?2, url = ?3, base_url = ?4, auth = ?5, ob_app = ?6, user_name = ?7, password_sealed = ?8, ca = ?9,
    pin = ?10, maintenance_since = ?11, maintenance_until = ?12, guarded = ?13 WHERE id = ?1";
const DELETE: &str = "DELETE FROM peer WHERE id = ?1";
const SELECT: &str = "SELECT id, tenant, name, url, base_url, auth, ob_app, user_name, password_sealed, ca, pin, maintenance_since,
    maintenance_until, created_at, generation, guarded FROM peer";
const RAISE_GENERATION: &str = "UPDATE peer SET generation = generation + 1 WHERE id = ?1 AND generation = ?2";
const GENERATION: &str = "SELECT generation FROM peer WHERE id = ?1";
const SET_UNLINKED: &str = "UPDATE peer SET unlinked_at = ?2 WHERE id = ?1";
const SET_METADATA: &str = "UPDATE peer SET metadata = ?2 WHERE id = ?1";
const METADATA: &str = "SELECT metadata, unlinked_at FROM peer WHERE id = ?1";

/// Adds a peer; false when its tenant has one of that name.
pub fn insert(transaction: &Transaction<'_>, seals: &Seals, peer: &Peer) -> Result<bool, Fault> {
    let columns = Columns::of(seals, peer);
    let row = params![
        peer.id,
        peer.tenant,
        peer.name,
        peer.url.as_str(),
        peer.base_url.as_ref().map(Url::as_str),
        peer.auth.as_str(),
        columns.ob_app,
        columns.user_name,
        columns.password,
        peer.trust.ca,
        peer.trust.pin,
        peer.maintenance.map(|maintenance| maintenance.since),
        peer.maintenance.map(|maintenance| maintenance.until),
        peer.created_at,
        peer.generation.cast_signed(),
        peer.guarded
    ];
    Ok(transaction.prepare_cached(INSERT)?.execute(row)? == 1)
}

/// Writes all that an operator can change of a peer that exists; its generation is not touched.
pub fn update(transaction: &Transaction<'_>, seals: &Seals, peer: &Peer) -> Result<(), Fault> {
    let columns = Columns::of(seals, peer);
    let row = params![
        peer.id,
        peer.name,
        peer.url.as_str(),
        peer.base_url.as_ref().map(Url::as_str),
        peer.auth.as_str(),
        columns.ob_app,
        columns.user_name,
        columns.password,
        peer.trust.ca,
        peer.trust.pin,
        peer.maintenance.map(|maintenance| maintenance.since),
        peer.maintenance.map(|maintenance| maintenance.until),
        peer.guarded
    ];
    transaction.prepare_cached(UPDATE)?.execute(row)?;
    Ok(())
}

/// Deletes a peer, and with it its tokens and request URLs.
pub fn delete(transaction: &Transaction<'_>, id: Id) -> Result<(), Fault> {
    transaction.prepare_cached(DELETE)?.execute([id])?;
    Ok(())
}

/// Raises the generation if it is still `expected`; false when something else happened meanwhile, or the peer is gone.
pub fn raise_generation(transaction: &Transaction<'_>, id: Id, expected: u64) -> Result<bool, Fault> {
    Ok(transaction.prepare_cached(RAISE_GENERATION)?.execute(params![id, expected.cast_signed()])? == 1)
}

/// The generation of a peer; `None` when it is gone.
pub fn generation(connection: &Connection, id: Id) -> Result<Option<u64>, Fault> {
    let generation: Option<i64> = connection.prepare_cached(GENERATION)?.query_row([id], |row| row.get(0)).optional()?;
    Ok(generation.map(i64::cast_unsigned))
}

/// Notes when an operator unlinked the peer, or that it is to be linked again.
pub fn set_unlinked(transaction: &Transaction<'_>, id: Id, at: Option<Timestamp>) -> Result<(), Fault> {
    transaction.prepare_cached(SET_UNLINKED)?.execute(params![id, at])?;
    Ok(())
}

/// Keeps what the peer's server last said of itself; `None` forgets it.
pub fn set_metadata(transaction: &Transaction<'_>, id: Id, metadata: Option<&Metadata>) -> Result<(), Fault> {
    transaction.prepare_cached(SET_METADATA)?.execute(params![id, metadata.map(json)])?;
    Ok(())
}

/// What the peer's server last said of itself, and when the peer was unlinked. What an older version wrote of the former and this one
/// cannot read is asked for again.
pub fn metadata_and_unlinked(connection: &Connection, id: Id) -> Result<(Option<Metadata>, Option<Timestamp>), Fault> {
    let found: Option<(Option<String>, Option<Timestamp>)> =
        connection.prepare_cached(METADATA)?.query_row([id], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    let (metadata, unlinked) = found.unwrap_or_default();
    Ok((metadata.and_then(|text| serde_json::from_str(&text).ok()), unlinked))
}

/// The peer with that id.
pub fn by_id(connection: &Connection, seals: &Seals, id: Id) -> Result<Option<Peer>, Fault> {
    Ok(many(connection, seals, "WHERE id = ?1", params![id])?.pop())
}

/// The tenant's peer of that name.
pub fn by_name(connection: &Connection, seals: &Seals, tenant: &str, name: &str) -> Result<Option<Peer>, Fault> {
    Ok(many(connection, seals, "WHERE tenant = ?1 AND name = ?2", params![tenant, name])?.pop())
}

/// The peers that use an OB app, by name.
pub fn of_ob_app(connection: &Connection, seals: &Seals, ob_app: Id) -> Result<Vec<Peer>, Fault> {
    many(connection, seals, "WHERE ob_app = ?1 ORDER BY name", params![ob_app])
}

/// Every peer of every tenant.
pub fn all(connection: &Connection, seals: &Seals) -> Result<Vec<Peer>, Fault> {
    many(connection, seals, "ORDER BY tenant, name", params![])
}

fn many(connection: &Connection, seals: &Seals, which: &str, parameters: impl rusqlite::Params) -> Result<Vec<Peer>, Fault> {
    let mut statement = connection.prepare_cached(&format!("{SELECT} {which}"))?;
    let mut rows = statement.query(parameters)?;
    let mut peers = Vec::new();
    while let Some(row) = rows.next()? {
        peers.push(read(row, seals)?);
    }
    Ok(peers)
}

/// What `auth` becomes in columns.
#[derive(Default)]
struct Columns<'a> {
    ob_app: Option<Id>,
    user_name: Option<&'a str>,
    password: Option<Vec<u8>>,
}

impl<'a> Columns<'a> {
    fn of(seals: &Seals, peer: &'a Peer) -> Self {
        let (ob_app, user) = match &peer.auth {
            Auth::OAuth { ob_app, user } => (Some(*ob_app), user.as_ref()),
            Auth::Basic(user) => (None, Some(user)),
            Auth::None => (None, None),
        };
        let password = user.map(|user| seals.seal(place(&peer.id), user.password.expose_secret().as_bytes()));
        Self { ob_app, user_name: user.map(|user| user.name.as_str()), password }
    }
}

const fn place(id: &Id) -> Place<'_> {
    Place { table: TABLE, column: "password_sealed", row: id.as_bytes() }
}

fn read(row: &Row<'_>, seals: &Seals) -> Result<Peer, Fault> {
    let id: Id = row.get(0)?;
    let user = match (row.get(7)?, row.get::<_, Option<Vec<u8>>>(8)?) {
        (Some(name), Some(sealed)) => Some(User { name, password: seals.open_text(place(&id), &sealed)? }),
        _ => None,
    };
    let auth = match (row.get::<_, String>(5)?.as_str(), row.get(6)?, user) {
        ("oauth", Some(ob_app), user) => Auth::OAuth { ob_app, user },
        ("basic", None, Some(user)) => Auth::Basic(user),
        ("none", None, None) => Auth::None,
        _ => return Err(super::corrupt(TABLE, "auth")),
    };
    let maintenance = match (row.get(11)?, row.get(12)?) {
        (Some(since), Some(until)) => Some(Maintenance { since, until }),
        _ => None,
    };
    Ok(Peer {
        id,
        tenant: row.get(1)?,
        name: row.get(2)?,
        url: super::url(TABLE, &row.get::<_, String>(3)?)?,
        base_url: row.get::<_, Option<String>>(4)?.map(|text| super::url(TABLE, &text)).transpose()?,
        auth,
        trust: PeerTrust { ca: row.get(9)?, pin: row.get(10)? },
        maintenance,
        created_at: row.get(13)?,
        generation: row.get::<_, i64>(14)?.cast_unsigned(),
        guarded: row.get(15)?,
    })
}
