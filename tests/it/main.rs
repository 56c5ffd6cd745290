//! The integration tests: one binary, a world of two daemons, a hostile peer, and real processes.

mod audit;
mod bindings;
mod calls;
mod canary;
mod checklist;
mod cli;
mod command_flags;
mod config_keys;
mod crash;
mod crash_of_an_exchange;
mod demo;
mod grpc;
mod init;
mod keeper;
mod linking;
mod pages_of_a_handshake;
mod peers_that_move;
mod people;
mod real_browser;
mod reload;
mod resumed_sessions;
mod service;
mod tidy;
mod under_a_path;
mod whole_story;
mod world;
