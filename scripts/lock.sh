#!/usr/bin/env bash
# Renews the lock files. The development lock comes first: the images get the very versions that the tests ran with.
#
# lock.sh            keeps what is locked and adds what pyproject.toml asks for anew
# lock.sh --upgrade  takes the newest versions within the bounds
set -euo pipefail
cd "$(dirname "$0")/.."

tools=$(scripts/python-tools.sh)
if [ -n "${PIP_INDEX_URL:-}" ]; then export UV_DEFAULT_INDEX=${UV_DEFAULT_INDEX:-$PIP_INDEX_URL}; fi
compile() {
  local target=$1
  shift
  printf '==> %s\n' "$target" >&2
  "$tools/bin/uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
    --output-file "$target" "$@"
}

compile locks/dev.txt pyproject.toml trainer_image/pyproject.toml --group dev --extra full "$@"
compile locks/operator.txt pyproject.toml --constraints locks/dev.txt "$@"
compile trainer_image/locks/check.txt trainer_image/pyproject.toml --extra stores --extra measure --constraints locks/dev.txt "$@"
compile trainer_image/locks/full.txt trainer_image/pyproject.toml --extra full --constraints locks/dev.txt "$@"

# What `make bench-trainer` compares with: each peer in an environment of its own, since they ask for different versions.
compile bench/trainer/locks/trl.txt bench/trainer/locks/trl.in --constraints locks/dev.txt "$@"
for peer in llamafactory unsloth; do compile "bench/trainer/locks/$peer.txt" "bench/trainer/locks/$peer.in" "$@"; done
