"""What is imported for good is no matter of the garbage collector, and what comes afterwards is."""

import json
import subprocess
import sys

import pytest

from finetune_trainer.computing import garbage

PROGRAM = """
import gc, json, weakref
import pytest

from finetune_trainer.computing import garbage
before = gc.get_threshold()
garbage.import_and_freeze("numpy", "email.parser")

class Model:
    def __init__(self):
        self.itself = self

model = weakref.ref(Model())
threshold, passed_over, looked_at = gc.get_threshold(), gc.get_freeze_count(), len(gc.get_objects())
gc.collect()
print(json.dumps([threshold == before, passed_over > 20 * looked_at, model() is None]))
"""


def test_what_is_imported_is_passed_over_and_a_model_that_comes_afterwards_can_go():
    said = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert json.loads(said.stdout) == [True, True, True]
    assert said.stderr == ""


def test_an_image_that_lacks_a_library_says_so_and_collects_as_before(monkeypatch):
    monkeypatch.undo()  # conftest.py keeps it from happening in this process
    before = garbage.gc.get_threshold()
    with pytest.raises(ModuleNotFoundError, match="no_such_library"):
        garbage.import_and_freeze("no_such_library")
    assert garbage.gc.get_threshold() == before
