//! Why things are as they are: for those who operate p2pid, review it or change it.
//!
//! - [`audit`]: what is a row of the audit, what a metric and what a line of the log; how it is kept
//! - [`checklist`]: each rule of OAuth that is kept, its source, and the key that its tests are named by
//! - [`defaults`]: every default of the configuration, with its reason
//! - [`headers`]: which headers of a call never reach an application
//! - [`operations`]: what the daemon does at start, reload, stop, crash and restore, and what to watch
//! - [`refresh`]: the refresh rules on both sides of a link, and why no cheaper rule will do
//! - [`threats`]: the measures of RFC 9700, where each is enforced, and the test that shows it

#[doc = include_str!("audit.md")]
pub mod audit {}

#[doc = include_str!("checklist.md")]
pub mod checklist {}

#[doc = include_str!("defaults.md")]
pub mod defaults {}

#[doc = include_str!("headers.md")]
pub mod headers {}

#[doc = include_str!("operations.md")]
pub mod operations {}

#[doc = include_str!("refresh.md")]
pub mod refresh {}

#[doc = include_str!("threats.md")]
pub mod threats {}
