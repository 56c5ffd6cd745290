//! What the daemon says of itself: logs, metrics, and the named points at which crash tests kill it.

pub mod log;
pub mod metrics;
pub mod point;
mod redact;
