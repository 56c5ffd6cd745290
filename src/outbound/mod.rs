//! Whom we may call, and how a link to them is made and kept: rules over plain data, without sockets, store or clock.
//!
//! - [`ob_app`], [`peer`]: the records an operator makes
//! - [`metadata`]: what an authorization server says of itself, checked
//! - [`ticket`], [`handshake`], [`callback`]: from a request URL to a code
//! - [`exchange`], [`answer`]: token calls, and what their answers mean
//! - [`plan`], [`turn`], [`vouching`], [`attempt`]: when a token is renewed, whether it may be, and what becomes of a link after each attempt
//! - [`link`]: the state of a link, in words that name the fix
//! - [`caller`]: the local applications that may call

pub mod answer;
pub mod attempt;
pub mod callback;
pub mod caller;
pub mod client;
pub mod exchange;
pub mod handshake;
pub mod keys;
pub mod link;
pub mod metadata;
pub mod ob_app;
pub mod peer;
pub mod plan;
pub mod revocation;
pub mod ticket;
pub mod turn;
pub mod vouching;
