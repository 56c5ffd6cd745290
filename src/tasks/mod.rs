//! Everything that runs by itself.

pub mod keeper;
