//! Everything that comes in over HTTP. A door loads the facts, has the core judge them, commits and answers; a door does not call a door.

pub mod admin;
pub mod console;
pub mod local_browser;
