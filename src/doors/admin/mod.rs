//! The admin API: one router, served on the admin socket to processes of this host and on the console listener to people with an API key.
//!
//! | path below `/v2` | verbs |
//! |---|---|
//! | `/tenants`, `/users` and one of them | list, create · show, update, delete |
//! | `/tenants/{tenant}/{collection}` and one record by name or id | list, create · show, update, delete |
//! | `/tenants/{tenant}/{collection}/{name}/{action}` | POST |
//!
//! A handler takes [`document::Document`] and answers with [`document::shown`], [`document::created`], [`document::done`] or an
//! [`AdminError`]. Who asks and whether they may is settled before it runs, and every change leaves an audit event behind it.

pub mod caller;
pub mod document;
pub mod error;

pub use caller::Caller;
pub use document::{Document, created, done, record, shown};
pub use error::AdminError;
