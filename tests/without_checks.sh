#!/usr/bin/env bash
# What the tests say of a build without a check: tests/without_checks.sh [--single] [NAME…]
#
# Each file of tests/without_checks/ takes one check out of a copy of the working tree (target/without-checks) and names the tests that have
# to fail for it, with words of their failure. All go into one build, which skips the check that P2PID_WITHOUT names, and every check when
# it names none: so each is missed alone, and with all of them in place the same tests pass. With --single each gets a build of its own,
# in which its check is skipped for good.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHONDONTWRITEBYTECODE=1 exec python3 tests/without_checks/run.py "$@"
