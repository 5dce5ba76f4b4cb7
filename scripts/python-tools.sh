#!/usr/bin/env bash
# Prints the folder of a small Python environment with pip and uv, made first where it is not there.
#
# Everything that is fetched from PyPI on this machine comes by these two. The environment is the cache's, not the clone's; uv is
# pinned with its hashes in locks/uv.txt. It does not touch .venv (scripts/venv.sh does).
set -euo pipefail
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-python3}
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/finetune-operator
say() { printf '==> %s\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

PYTHON=$PYTHON scripts/python-version.sh

# Debian's python3 comes without venv and ensurepip.
if ! "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null; then
  [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || die "$PYTHON has no venv module: install Debian's python3-venv"
  say "installing Debian's python3-venv"
  mkdir -p "$CACHE/logs"
  { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends python3-venv; } \
    > "$CACHE/logs/apt.log" 2>&1 || die "apt-get failed; see $CACHE/logs/apt.log"
fi

mkdir -p "$CACHE/locks"
exec 9>"$CACHE/locks/python-tools"
flock 9

version=$("$PYTHON" -c 'import sys; print(sys.version_info.major, sys.version_info.minor, sys.prefix)')
wanted=$({ cat locks/uv.txt; echo "$version"; } | sha256sum | cut -c 1-12)
folder=$CACHE/python-tools-$wanted
if [ ! -f "$folder/complete" ]; then
  say "making a Python environment with pip and uv in $folder"
  rm -rf "$folder"
  "$PYTHON" -m venv "$folder" >&2
  "$folder/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary=:all: -r locks/uv.txt >&2
  touch "$folder/complete"
fi
echo "$folder"
