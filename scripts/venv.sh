#!/usr/bin/env bash
# Makes .venv from locks/dev.txt, with the operator and the trainer as editable installs; does nothing when it is up to date.
#
# The stamp is written last: what an interrupted run left is completed by the next one.
set -euo pipefail
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-python3}
PYTHON=$PYTHON scripts/python-version.sh
stamp=.venv/finetune-stamp
inputs=(locks/dev.txt locks/uv.txt pyproject.toml trainer_image/pyproject.toml)
wanted=$({ cat "${inputs[@]}"; "$PYTHON" -c 'import sys; print(sys.version, sys.prefix)'; } | sha256sum | cut -c 1-64)
[ "$(cat "$stamp" 2>/dev/null || true)" = "$wanted" ] && exit 0

tools=$(PYTHON=$PYTHON scripts/python-tools.sh)
exec 9>"${XDG_CACHE_HOME:-$HOME/.cache}/finetune-operator/locks/venv-$(pwd | sha256sum | cut -c 1-12)"
flock 9
[ "$(cat "$stamp" 2>/dev/null || true)" = "$wanted" ] && exit 0

# uv does not read pip's settings: a mirror that is set for pip shall serve it too.
export UV_HTTP_TIMEOUT=${UV_HTTP_TIMEOUT:-300}
if [ -n "${PIP_INDEX_URL:-}" ]; then export UV_DEFAULT_INDEX=${UV_DEFAULT_INDEX:-$PIP_INDEX_URL}; fi

printf '==> installing the locked dependencies into .venv (6 GB the first time, minutes)\n' >&2
if ! .venv/bin/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
  "$tools/bin/uv" venv --quiet --clear --python "$PYTHON" .venv
fi
"$tools/bin/uv" pip sync --quiet --python .venv/bin/python --require-hashes locks/dev.txt
"$tools/bin/uv" pip install --quiet --python .venv/bin/python --no-deps --editable . --editable trainer_image
echo "$wanted" > "$stamp"
scripts/bytecode.sh restore
