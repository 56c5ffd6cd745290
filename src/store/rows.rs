//! How the core's small types stand in a row. A value that does not convert is a corrupt row, and an error.

use std::time::Duration;

use rusqlite::Row;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};

use super::{Fault, Place, Seals};
use crate::clock::{BootId, Moment, Timestamp};
use crate::id::Id;
use crate::oauth::binding::Binding;
use crate::oauth::scope::Scope;
use crate::oauth::signing_key::SigningKey;
use crate::secret::Digest;

impl ToSql for Id {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(ValueRef::Blob(self.as_bytes())))
    }
}

impl FromSql for Id {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        <[u8; 16]>::column_result(value).map(Self::from_bytes)
    }
}

impl ToSql for Digest {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(ValueRef::Blob(self.as_bytes())))
    }
}

impl FromSql for Digest {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        <[u8; 32]>::column_result(value).map(Self::from_bytes)
    }
}

impl ToSql for Timestamp {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.millis().into())
    }
}

impl FromSql for Timestamp {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        i64::column_result(value).map(Self::from_millis)
    }
}

impl ToSql for Scope {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.to_string().into())
    }
}

impl FromSql for Scope {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        value.as_str()?.parse().map_err(FromSqlError::other)
    }
}

/// A moment as it stands in a row: three INTEGER columns, `<name>_wall` and `<name>_boot` in milliseconds and `<name>_boot_id`.
pub fn moment_columns(moment: &Moment) -> [i64; 3] {
    let boot = i64::try_from(moment.boot.as_millis()).unwrap_or(i64::MAX);
    // Boot ids have no sign bit, by construction.
    [moment.wall.millis(), boot, moment.boot_id.0.cast_signed()]
}

/// The moment in the three columns that begin at `first`.
pub fn moment(row: &Row<'_>, first: usize) -> rusqlite::Result<Moment> {
    let boot: i64 = row.get(first + 1)?;
    let boot = u64::try_from(boot).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(first + 1, boot))?;
    let boot_id: i64 = row.get(first + 2)?;
    Ok(Moment { wall: row.get(first)?, boot: Duration::from_millis(boot), boot_id: BootId(boot_id.cast_unsigned()) })
}

/// What a token is bound to, in the column `column`.
pub fn binding(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Binding>> {
    let text: Option<String> = row.get(column)?;
    text.map(|text| text.parse().map_err(|error| conversion(column, FromSqlError::other(error)))).transpose()
}

/// A key of ours, as it was sealed: PKCS#8.
pub(super) fn signing_key(seals: &Seals, place: Place<'_>, sealed: &[u8]) -> Result<SigningKey, Fault> {
    SigningKey::from_der(&seals.open(place, sealed)?).map_err(|_| super::corrupt(place.table, place.column))
}

/// A list or an object as it stands in a TEXT column: JSON.
pub fn json<T: serde::Serialize + ?Sized>(value: &T) -> String {
    serde_json::to_string(value).expect("names and lists of them are always JSON")
}

/// The value in the JSON column `column`.
pub fn from_json<T: serde::de::DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<T> {
    let text = row.get_ref(column)?.as_str().map_err(|error| conversion(column, error))?;
    serde_json::from_str(text).map_err(|error| conversion(column, FromSqlError::other(error)))
}

fn conversion(column: usize, error: FromSqlError) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(error))
}

#[cfg(test)]
mod tests {
    use rusqlite::{Connection, params};

    use super::*;

    fn connection() -> Connection {
        Connection::open_in_memory().expect("a database")
    }

    #[test]
    fn what_is_written_is_read_again() {
        let connection = connection();
        let (id, digest) = (Id::from_bytes([7; 16]), Digest::of("text"));
        let (time, scope): (_, Scope) = (Timestamp::from_millis(-5), "b a".parse().expect("a scope"));
        let moment = Moment { wall: time, boot: Duration::from_millis(1_234), boot_id: BootId(u64::MAX >> 1) };
        let [wall, boot, boot_id] = moment_columns(&moment);
        let names = vec!["a \"quoted\"".to_owned(), "ä".to_owned()];
        let read = connection.query_row(
            "SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8",
            params![id, digest, time, scope, wall, boot, boot_id, json(&names)],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, super::moment(row, 4)?, from_json(row, 7)?)),
        );
        assert_eq!(read.expect("read"), (id, digest, time, scope, moment, names));
    }

    #[test]
    fn what_does_not_convert_is_an_error() {
        let connection = connection();
        let refused = |sql: &str, read: fn(&Row<'_>) -> rusqlite::Result<()>| connection.query_row(sql, [], read).is_err();
        assert!(refused("SELECT x'0011'", |row| row.get::<_, Id>(0).map(drop)));
        assert!(refused("SELECT 'text'", |row| row.get::<_, Digest>(0).map(drop)));
        assert!(refused("SELECT 'a  b'", |row| row.get::<_, Scope>(0).map(drop)));
        assert!(refused("SELECT 1, -1, 1", |row| moment(row, 0).map(drop)));
        assert!(refused("SELECT '[1'", |row| from_json::<Vec<i64>>(row, 0).map(drop)));
        assert!(refused("SELECT x'00'", |row| from_json::<Vec<i64>>(row, 0).map(drop)));
    }
}
