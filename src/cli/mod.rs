//! The command line: subcommands, and what they print.

pub mod demo;
