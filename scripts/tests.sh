#!/usr/bin/env bash
# Runs pytest, then looks whether the clusters that the tests started are gone, and ends those that are not.
#
# Clusters of anybody else stay as they are, whenever they were started. pytest's summary is the last thing on stdout.
set -uo pipefail
cd "$(dirname "$0")/.."

clusters=${XDG_CACHE_HOME:-$HOME/.cache}/finetune-operator/clusters
log=$(dirname "$clusters")/logs/tests-down.log
export CLUSTER_TESTS_RUN=$$-$(date +%s)
# What hypothesis reads from this project's code to draw from is kept by content: each worker read it anew in a fresh clone.
export HYPOTHESIS_STORAGE_DIRECTORY=${HYPOTHESIS_STORAGE_DIRECTORY:-$(dirname "$clusters")/hypothesis}
end_new_clusters() {
  local state
  for state in $(grep -ls "\"run\": \"$CLUSTER_TESTS_RUN\"" "$clusters"/*/state.json); do
    # Quietly: the summary stays the last thing that is read.
    .venv/bin/python -m tests.cluster down --name "$(basename "$(dirname "$state")")" 2>> "$log"
  done
}
trap end_new_clusters EXIT
trap 'exit 130' INT TERM
# Two workers, or as many as the caller says: tests with pods mostly wait, the others compute. tests/conftest.py says which
# go together.
.venv/bin/python -m pytest --numprocesses 2 --no-loadscope-reorder "$@"
