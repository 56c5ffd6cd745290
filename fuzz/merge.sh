#!/usr/bin/env bash
# Keeps of what fuzz/run.sh has found the fewest inputs that reach as many edges: fuzz/merge.sh [TARGET…], every target where none is said.
#
# fuzz/corpus/TARGET has the inputs to begin with (seed-N, of src/seeds.rs) and the kept ones, which are named by their digests. What a
# run finds is in target/fuzz/TARGET/corpus until it is merged. An input longer than 4 KiB is not kept.
set -euo pipefail
cd "$(dirname "$0")"
out=$(cd .. && pwd)/target/fuzz
TMPDIR=$(mktemp -d)
export TMPDIR
trap 'rm -rf "$TMPDIR"' EXIT
if [ "$#" -eq 0 ]; then
  for target in fuzz_targets/*.rs; do
    target=${target##*/}
    set -- "$@" "${target%.rs}"
  done
fi
for target in "$@"; do
  kept=$TMPDIR/$target
  mkdir -p "$kept" "$out/$target/corpus" "corpus/$target"
  find "corpus/$target" -name 'seed-*' -exec cp -t "$kept" {} +
  if ! ../target/debug/"$target" -set_cover_merge=1 -use_counters=0 -timeout=10 -rss_limit_mb=512 -max_len=4096 -artifact_prefix="$out/$target/" \
    "$kept" "corpus/$target" "$out/$target/corpus" >"$out/$target/merge.log" 2>&1; then
    echo "$target: not merged, see $out/$target/merge.log"
    exit 1
  fi
  find "$kept" -type f -size +4096c -not -name 'seed-*' -delete
  rm -rf "corpus/$target" "$out/$target/corpus"
  cp -r "$kept" "corpus/$target"
  printf '%-22s %s inputs\n' "$target" "$(find "corpus/$target" -type f | wc -l)"
done
