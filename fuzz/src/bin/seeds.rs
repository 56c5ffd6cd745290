//! Writes the inputs to begin with: `seeds FOLDER`.

use std::path::PathBuf;
use std::process::ExitCode;

// What counts where p2pid has been is in it.
use libfuzzer_sys as _;

fn main() -> ExitCode {
    let Some(corpus) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("seeds FOLDER: where the targets' folders are, fuzz/corpus");
        return ExitCode::FAILURE;
    };
    match p2pid_fuzz::seeds::write(&corpus) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("{}: {problem}", corpus.display());
            ExitCode::FAILURE
        }
    }
}
