#!/usr/bin/env bash
# OAuth libraries of others against real daemons: tests/interop/run.sh BINARY [LIBRARIES [SUITE…]]
#
# LIBRARIES is where install.sh has put them (target/interop). Every scenario of scenarios.txt is played, or with SUITE those of the named
# suites, and one that is not has failed.
# Nothing is written outside a temporary folder, which goes with the run; so do all processes.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
binary=$(realpath "${1:?which p2pid? tests/interop/run.sh BINARY [LIBRARIES [SUITE…]]}")
libraries=$(realpath "${2:-$here/../../target/interop}")
if ! [ -x "$libraries/venv/bin/python" ] || ! [ -d "$libraries/node_modules" ]; then
  echo "$libraries has no libraries: tests/interop/install.sh $libraries"
  exit 1
fi
work=$(mktemp -d)
player=
# However this ends, the player ends what it has started, and then the folder goes.
end() {
  [ -z "$player" ] || { kill "$player" && wait "$player"; } 2> /dev/null || true
  rm -rf "$work"
}
trap end EXIT
export PYTHONDONTWRITEBYTECODE=1 PYTHONPATH="$here"
cd "$here"
timeout --kill-after=10 230 "$libraries/venv/bin/python" -m play "$binary" "$libraries" "$work" "${@:3}" &
player=$!
wait "$player"
