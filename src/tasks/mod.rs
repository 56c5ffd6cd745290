//! Everything that runs by itself.

pub mod keeper;
pub mod purge;
