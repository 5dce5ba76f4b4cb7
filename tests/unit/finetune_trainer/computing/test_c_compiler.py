"""Whether layers can be compiled here is tried: a compiler alone is not enough."""

import shutil
from pathlib import Path

import pytest

from finetune_trainer.computing import c_compiler
from finetune_trainer.computing.c_compiler import why_none


@pytest.mark.skipif(shutil.which("gcc") is None, reason="this machine has no gcc")
def test_a_library_for_python_is_built_and_loaded(monkeypatch):
    monkeypatch.delenv("CC", raising=False)
    assert why_none() is None


def compiler(folder: Path, script: str) -> str:
    path = folder / "cc"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("script", "why"),
    [
        (
            "echo 'tried.c:1:10: fatal error: Python.h: No such file' >&2; exit 1",
            "error: Python.h: No such",
        ),
        ("exit 1", "it says nothing"),
        ('while [ "$1" != -o ]; do shift; done; echo nonsense > "$2"', "cannot be loaded"),
        ("sleep 5", "cannot be run: TimeoutExpired"),
    ],
)
def test_one_that_does_not_do_is_said_to_be_so(script, why, tmp_path, monkeypatch):
    monkeypatch.setenv("CC", compiler(tmp_path, script))
    monkeypatch.setattr(c_compiler, "_SECONDS", 0.5 if "sleep" in script else 60)
    assert why in (why_none() or "")


def test_none_at_all_is_said_to_be_so(tmp_path, monkeypatch):
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert why_none() == "there is no C compiler"


def test_one_that_is_named_and_absent_is_said_to_be_so(tmp_path, monkeypatch):
    monkeypatch.setenv("CC", str(tmp_path / "absent"))
    assert "cannot be run: FileNotFoundError" in (why_none() or "")
