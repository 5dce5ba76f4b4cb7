"""Runs the command in a next step as a user would."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

WORDS = {"REQUESTS.jsonl RESULTS.jsonl": "FILE OTHER", ".NAME.NAME": ".fields.x"}
"""Default replacements for placeholders in commands."""


def followed(step: str, folder: Path, words: Mapping[str, str] = WORDS, **files: str | bytes) -> str:
    """Run the step's command, after a preceding one, in a folder with these files; returns what it writes into ROWS."""
    command = re.findall(r"`((?:jq|python3|sed|tail|tr) .*?)`(?:[ .,]|$)", step)[0]
    program = command.split()[0]
    if not shutil.which(program):
        pytest.skip(f"{program} is not installed here")
    for word, meant in words.items():
        command = command.replace(word, meant)
    for name, data in files.items():
        (folder / name).write_bytes(data if isinstance(data, bytes) else data.encode())
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    for one in (*re.findall(r" Before that: `(.*)`\.$", step), command):
        subprocess.run(["bash", "-c", one], cwd=folder, check=True, env=environment)
    (made,) = folder.glob("ROWS*")
    return made.read_bytes().decode(errors="surrogateescape")
