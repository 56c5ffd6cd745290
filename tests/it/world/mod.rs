//! The world of the tests: daemons, browsers, clocks and peers that misbehave.

pub(crate) mod address;
pub(crate) mod clock;
pub(crate) mod hostile;
pub(crate) mod message;
pub(crate) mod patience;
pub(crate) mod person;
pub(crate) mod process;
pub(crate) mod settings;
pub(crate) mod wire;
