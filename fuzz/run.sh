#!/usr/bin/env bash
# Fuzzes every target for a while, from the inputs of fuzz/corpus: fuzz/run.sh [SECONDS [TARGET…]], 5 seconds each where none are said. Prints
# how far each came (cov: edges, ft: edges by how often they ran), and fails when an input broke a rule; that input is in target/fuzz/TARGET.
#
# FUZZ_SEED=N makes chance repeat itself; without it each run goes another way.
#
# It needs no nightly compiler. With one, `cargo fuzz run TARGET` here does the same with a sanitizer besides.
set -euo pipefail
cd "$(dirname "$0")"
seconds=${1:-5}
shift || true
out=$(cd .. && pwd)/target/fuzz
mkdir -p "$out"
TMPDIR=$(mktemp -d)
export TMPDIR
trap 'rm -rf "$TMPDIR"' EXIT

# The target directory of p2pid itself: what both depend on is there already.
RUSTC_WRAPPER=$PWD/rustc.sh CARGO_TARGET_DIR=../target ${CARGO:-cargo} build --locked --quiet
if [ "$#" -eq 0 ]; then
  for target in fuzz_targets/*.rs; do
    target=${target##*/}
    set -- "$@" "${target%.rs}"
  done
fi

# Two at a time, as many as the smallest machine has processors.
fuzz() {
  local target=$1 found=$out/$1
  mkdir -p "$found/corpus"
  # What is new goes to the first folder. An input that takes 10 seconds or 512 MiB is one that breaks a rule.
  if ! ../target/debug/"$target" -max_total_time="$seconds" -seed="${FUZZ_SEED:-0}" -timeout=10 -rss_limit_mb=512 -max_len=8192 -artifact_prefix="$found/" \
    "$found/corpus" "corpus/$target" >"$found/log" 2>&1; then
    printf '%-22s %s\n' "$target" "FAILED, see $found/log"
    grep -a -m 1 -A 2 'panicked at' "$found/log" || tail -n 5 "$found/log"
    return 1
  fi
  printf '%-22s %s\n' "$target" "$(grep -a -o 'cov: [0-9]* ft: [0-9]*\|exec/s: [0-9]*' "$found/log" | tail -n 2 | paste -sd ' ')"
}
export -f fuzz
export out seconds
printf '%s\n' "$@" | xargs -P 2 -I '{}' bash -euo pipefail -c 'fuzz "$1"' fuzz '{}'
