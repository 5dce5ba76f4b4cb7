#!/usr/bin/env bash
# Ends every throw-away cluster and removes the cache: Go programs, images, downloads.
set -euo pipefail
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-python3}
cache=${XDG_CACHE_HOME:-$HOME/.cache}/finetune-operator
for cluster in "$cache"/clusters/*/; do
  [ -d "$cluster" ] && "$PYTHON" -m tests.cluster down --name "$(basename "$cluster")"
done
echo "==> removing $cache"
rm -rf "$cache"
