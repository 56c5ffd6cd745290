//! Everything that runs by itself.

pub mod audit;
pub mod endings;
pub mod keeper;
pub mod purge;
pub mod reload;
pub mod tokens;
pub mod unsure;
