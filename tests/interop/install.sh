#!/usr/bin/env bash
# The pinned libraries that tests/interop plays with: tests/interop/install.sh [FOLDER], target/interop when none is named.
#
# Versions and digests are those of package-lock.json and requirements.txt. What is there already and is right stays.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
folder=${1:-$here/../../target/interop}
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)

pinned=$(cat "$here/package.json" "$here/package-lock.json" "$here/requirements.txt" | sha256sum)
if [ "$(cat "$folder/installed" 2> /dev/null)" = "$pinned" ]; then
  echo "the libraries are in $folder"
  exit 0
fi
rm -f "$folder/installed"

major=$(node --version 2> /dev/null | sed 's/^v\([0-9]*\).*/\1/') || true
if [ "${major:-0}" -lt 20 ]; then
  echo "tests/interop needs node 20 or later, found ${major:-none}"
  exit 1
fi
cp "$here/package.json" "$here/package-lock.json" "$folder/"
(cd "$folder" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error)

rm -rf "$folder/venv"
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --require-hashes -r "$here/requirements.txt"

echo "$pinned" > "$folder/installed"
echo "installed in $folder"
