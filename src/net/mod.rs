//! The network: whom we believe, how we call others, how we listen, and the rules that every header and path obeys.

pub mod body;
pub mod causes;
pub mod certificate;
mod claims;
pub mod client;
pub mod client_certificate;
mod connect;
pub mod connection;
pub mod cores;
mod deadline;
pub mod files;
pub mod forwarded;
mod gather;
pub mod guard;
mod head;
pub mod headers;
pub mod lane;
pub mod life;
pub mod listener;
pub mod outgoing;
pub mod path;
pub mod places;
mod pool;
pub mod problem;
pub mod proxy;
pub mod request_id;
pub mod serve;
mod stream;
pub mod tls;
pub mod trust;
mod unread;
mod unreadable;
pub mod websocket;

#[cfg(test)]
mod tests;
