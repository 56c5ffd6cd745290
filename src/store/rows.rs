//! How the core's small types stand in a row. A value that does not convert is a corrupt row, and an error.

use std::time::Duration;

use rusqlite::Row;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};

use crate::clock::{BootId, Moment, Timestamp};
use crate::id::Id;
use crate::oauth::scope::Scope;
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
