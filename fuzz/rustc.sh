#!/usr/bin/env bash
# rustc for cargo's RUSTC_WRAPPER: p2pid's library is compiled so that libFuzzer sees which branches run and what is compared, everything
# else as it is. These are the flags of `cargo fuzz`, but for the sanitizer, which needs a nightly compiler.
set -euo pipefail
case " $* " in
*" --crate-name p2pid "*" --crate-type lib "* | *" --crate-name p2pid_fuzz "*)
  exec "$@" --cfg fuzzing -Ccodegen-units=1 -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares
  ;;
esac
exec "$@"
