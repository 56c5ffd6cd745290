//! What the daemon says of itself: logs, metrics, signs of life to systemd, and the named points at which crash tests kill it.

pub mod calls;
pub mod log;
pub mod metrics;
pub mod point;
mod redact;
pub mod systemd;
