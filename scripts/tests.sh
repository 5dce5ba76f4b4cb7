#!/usr/bin/env bash
# Runs pytest, then looks whether the clusters that the tests started are gone, and ends those that are not.
#
# A cluster that was up before stays as it is. pytest's summary is the last thing on stdout.
set -uo pipefail
cd "$(dirname "$0")/.."

clusters=${XDG_CACHE_HOME:-$HOME/.cache}/finetune-operator/clusters
log=$(dirname "$clusters")/logs/tests-down.log
before=$(ls "$clusters" 2>/dev/null || true)
end_new_clusters() {
  local name
  for name in $(ls "$clusters" 2>/dev/null); do
    # Quietly: the summary stays the last thing that is read.
    grep -qxF "$name" <<< "$before" || .venv/bin/python -m tests.cluster down --name "$name" 2>> "$log"
  done
}
trap end_new_clusters EXIT
trap 'exit 130' INT TERM
# Two workers: tests with pods mostly wait, the others compute. tests/conftest.py says which go together.
.venv/bin/python -m pytest --numprocesses 2 --no-loadscope-reorder "$@"
