//! p2pid links platform instances with OAuth 2.0 instead of shared user names and passwords.

pub mod cli;
pub mod clock;
pub mod config;
pub mod daemon;
pub mod doors;
pub mod id;
pub mod inbound;
pub mod instance;
pub mod manual;
pub mod net;
pub mod oauth;
pub mod observe;
pub mod outbound;
pub mod pages;
pub mod random;
pub mod secret;
pub mod store;
pub mod system;
pub mod tasks;
