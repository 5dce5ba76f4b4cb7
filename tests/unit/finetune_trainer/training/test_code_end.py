"""Where spec.code ended: its own file and line, whatever ended it, and no word of its error, which may quote data."""

import subprocess
import sys
from pathlib import Path

import pytest

from finetune_trainer.training import code_start
from finetune_trainer.training.code_end import failed

RAISED = {
    "an error": ("def go():\n    raise ValueError('a row')\ngo()", "exit code 1: ValueError at train.py line 2;"),
    "an error below another library": ("import json\njson.loads('{')", "JSONDecodeError at train.py line 2;"),
    "an error of a file beside it": ("import helper\nhelper.go()", "exit code 1: KeyError at helper.py line 2;"),
    "an error in another folder": (
        "import os, tempfile\nos.chdir(folder := tempfile.mkdtemp())\nos.rmdir(folder)\n1 / 0",
        "ZeroDivisionError at train.py line 4;",
    ),
    "an exit code": ("import sys\nsys.exit(3)", "exit code 3 at train.py line 2;"),
    "words in place of an exit code": ("import sys\nsys.exit('a row')", "exit code 1 at train.py line 2;"),
    "an interruption of its own": ("\nraise KeyboardInterrupt", "SIGINT: KeyboardInterrupt at train.py line 2;"),
    "a stop that nobody asked for": (
        "raise SystemExit(75)",
        "run.stop() at train.py line 1, and nobody has asked it to",
    ),
    "what is not Python": ("x = 1\ny = (", "SyntaxError at train.py line 2;"),
    "what is not Python in a file beside it": ("import broken", "SyntaxError at broken.py line 2;"),
    "no UTF-8": (b"x = 1\n# caf\xe9", "SyntaxError at train.py line 2;"),
    "UTF-16": ("x = 1".encode("utf-16"), "SyntaxError"),
    "a zero byte": (b"x = 1\n\0", "SyntaxError at train.py line 2;"),
    "a module that is not there": ("import nothere.below", "line 1, of the module nothere;"),
    "a name that a module has not": ("from helper import nothere", "line 1, of the module helper;"),
    "a relative import": ("from . import helper", "ImportError at train.py line 1;"),
    "an error of its own kind": ("class Mine(Exception): pass\nraise Mine('a row')", "exit code 1: Mine at train.py"),
}


def ended(source: str | bytes, folder: Path):
    """What the child says, and the error that the job ends with."""
    code, scratch = folder / "configmap" / "train.py", folder / "scratch"
    for made in (code.parent, scratch):
        made.mkdir()
    code.write_bytes(source if isinstance(source, bytes) else source.encode())
    (code.parent / "helper.py").write_text("def go():\n    return {}['a row']\n")
    (code.parent / "broken.py").write_text("\nx = (\n")
    command = [sys.executable, "-c", code_start.COMMAND, str(code)]
    done = subprocess.run(command, check=False, cwd=scratch, capture_output=True, text=True)
    return done, failed(done.returncode, scratch) if done.returncode else None


@pytest.mark.parametrize("what", RAISED)
def test_it_is_told_by_kind_file_and_line_and_not_by_its_text(tmp_path, what):
    source, words = RAISED[what]
    done, error = ended(source, tmp_path)
    assert error.reason == "CodeFailed"
    assert words in error.message
    assert "a row" not in error.message
    assert "code_start" not in done.stderr, "its trace is that of the user's file"
    assert error.next_step


def test_a_module_that_is_not_there_may_be_another_key_of_the_config_map(tmp_path):
    _, error = ended("import nothere.below", tmp_path)
    assert "nothere.py" in error.next_step
    assert "trainerImage" in error.next_step


@pytest.mark.parametrize(
    "source", ["raise MemoryError", "class OutOfMemoryError(Exception): pass\nraise OutOfMemoryError"]
)
def test_a_lack_of_memory_is_one_by_reason(tmp_path, source):
    _, error = ended(source, tmp_path)
    assert error.reason == "OutOfMemory"
    assert "at train.py line" in error.message


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        ("OUT_OF_MEMORY", "OutOfMemory"),
        ("INSUFFICIENT_MEMORY", "InsufficientMemory"),
        ("ARTIFACT_FAILED", "CodeFailed"),
    ],
)
def test_a_lack_of_memory_in_a_piece_of_the_recipe_is_tried_again_where_that_may_help(tmp_path, reason, told):
    """Passes are halved for the next attempt; an optimizer without room has none then, either."""
    source = "from finetune_api.reasons import Reason\nfrom finetune_trainer.errors import TrainerError\n"
    _, error = ended(f"{source}raise TrainerError(Reason.{reason}, 'a row')", tmp_path)
    assert error.reason == told
    assert "TrainerError at train.py line 3" in error.message


def test_it_is_the_main_module_of_its_process_like_any_script(tmp_path):
    source = """
import inspect, pickle, sys
from dataclasses import dataclass
import helper
@dataclass
class Mine:
    number: int = 1
if __name__ == "__main__":
    assert pickle.loads(pickle.dumps(Mine())) == Mine()
    assert "number" in inspect.getsource(Mine)
    assert sys.argv == [__file__]
    assert sys.modules["__main__"].Mine is Mine
    assert sorted(name for name in globals() if not name.startswith("_")) == [
        "Mine", "dataclass", "helper", "inspect", "pickle", "sys"
    ]
"""
    done, _ = ended(source, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_its_functions_reach_processes_that_are_spawned(tmp_path):
    source = """
import multiprocessing
def double(number): return 2 * number
if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.map(double, [1, 2]) == [2, 4]
"""
    done, _ = ended(source, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("note", ["", "[]", '{"type": "a row of the data"}', '{"type": "X", "place": "/etc/passwd"}'])
def test_a_note_that_is_none_is_not_believed(tmp_path, note):
    (tmp_path / code_start.RAISED).write_text(note)
    assert failed(7, tmp_path).message.endswith("ended with exit code 7; the end of its output says why")
