#!/usr/bin/env bash
# Refuses a Python that is too old for this project, or is not there.
set -euo pipefail

PYTHON=${PYTHON:-python3}
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

command -v "$PYTHON" >/dev/null || die "$PYTHON is not there: install Python 3.11 or newer, or name it with PYTHON=…"
"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
  die "$("$PYTHON" --version) is too old: name a Python 3.11 or newer with PYTHON=…"
