"""The fixture `check`: runs `finetune-trainer check` on files that a test writes."""

import json

import pytest

from finetune_api.verdict import DatasetVerdict
from finetune_trainer.__main__ import main
from tests.assets.tiny_model import NAME as TINY


class Checked:
    """One call of the command: exit code, verdict, and its output for users."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code = code
        told = json.loads(out)
        self.memory = told.pop("memory", [])
        self.verdict = DatasetVerdict.model_validate(told)
        self.err = err


@pytest.fixture
def check(tmp_path, capsys):
    """Write files and a manifest that refers to them, and check it."""

    def run(*flags, spec=None, **splits) -> Checked:
        dataset = {}
        for split, (name, data) in splits.items():
            path = tmp_path / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(data.encode() if isinstance(data, str) else data)
            dataset[split] = {"uri": f"file://{path}"}
        manifest = {
            "apiVersion": "finetune.dev/v1alpha1",
            "kind": "FineTuneJob",
            "metadata": {"name": "job"},
            "spec": {
                "connectionRef": {"name": "local"},
                "baseModel": TINY,
                "modelRef": {"name": "model"},
                "dataset": dataset | (spec or {}).pop("dataset", {}),
                **(spec or {}),
            },
        }
        (tmp_path / "job.json").write_text(json.dumps(manifest))
        code = main(["check", "-f", str(tmp_path / "job.json"), *map(str, flags)])
        return Checked(code, *capsys.readouterr())

    return run


GOOD = '{"prompt": "What colour is the sky?", "completion": "blue"}\n{"prompt": "And grass?", "completion": "green"}\n'
