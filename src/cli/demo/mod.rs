//! `p2pid demo`: two real instances on loopback tell the whole story of a link.

pub mod application;
pub mod browser;
