//! The daemon: everything wired together in one place, and its life from start to stop.

mod error;
mod lifecycle;
mod parts;
mod running;
mod sockets;
mod start;

pub use error::StartError;
pub use lifecycle::run;
pub use running::Running;
pub use start::{key_credential, start};
