#!/usr/bin/env bash
# `keep` puts what Python has compiled of the packages in .venv into the user's cache, `restore` gives it to a new .venv.
#
# Each process that imports torch and all else in a fresh clone would compile it again: half a minute for each worker of the
# tests. Python itself sees whether bytecode fits its source (by time and size), and compiles what does not. What is compiled of
# this project's own files goes by their content.
set -euo pipefail
cd "$(dirname "$0")/.."

cache=${XDG_CACHE_HOME:-$HOME/.cache}/finetune-operator
kept=$cache/bytecode/$(cat .venv/finetune-stamp)
own=$cache/bytecode/own
mkdir -p "$cache/locks" "$cache/bytecode"
exec 9> "$cache/locks/bytecode"
flock 9
case ${1:-} in
  restore)
    if [ -d "$kept" ]; then cp -rT --preserve=timestamps "$kept" .venv/lib; fi
    .venv/bin/python scripts/own_bytecode.py restore "$own"
    ;;
  keep)
    rm -rf "$cache/bytecode"  # of other packages too
    mkdir -p "$kept"
    (cd .venv/lib && find . -name '*.pyc' -print0 | xargs -0r cp --parents --preserve=timestamps -t "$kept")
    .venv/bin/python scripts/own_bytecode.py keep "$own"
    ;;
  *)
    echo "usage: scripts/bytecode.sh keep|restore" >&2
    exit 2
    ;;
esac
