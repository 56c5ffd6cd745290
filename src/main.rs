//! The program: arguments in, exit status out.

use std::process::ExitCode;

fn main() -> ExitCode {
    p2pid::cli::main(std::env::args_os())
}
