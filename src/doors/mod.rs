//! Everything that comes in over HTTP. A door loads the facts, has the core judge them, commits and answers; a door does not call a door.

pub mod admin;
pub mod authorization;
pub mod browser;
mod call;
#[cfg(test)]
mod chain_tests;
pub mod console;
pub mod finish;
pub mod form;
pub mod gateway;
pub mod link;
pub mod local_browser;
mod nothing_here;
pub mod relay;
#[cfg(test)]
mod wire;
