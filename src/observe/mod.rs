//! What the daemon says of itself: logs, metrics, and the named points at which crash tests kill it.

pub mod point;
