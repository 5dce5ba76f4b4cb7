"""A field behind whose colon nothing stands is a warning where a way to the API server refuses it."""

import argparse

import pytest

from finetune_trainer.check import main
from tests.unit.finetune_trainer.job.test_check_manifest import JOB

MODEL = "apiVersion: finetune.dev/v1alpha1\nkind: FineTunedModel\nmetadata: {name: tickets}\nspec:\n"


@pytest.mark.parametrize(
    ("text", "warned"),
    [
        (f"{JOB}  budget:\n", ["spec.budget"]),
        (f"{JOB}  resources: {{gpusPerNode: ~}}\n", ["spec.resources.gpusPerNode"]),
        (f"{JOB}  evaluation: {{baselines: [{{fewShot: null, zeroShot: {{}}}}]}}\n", ["baselines[0].fewShot"]),
        (f"{JOB}  hyperparameters: {{epochs: null}}\n", []),
        (f"{MODEL}  activeVersion:\n", ["spec.activeVersion"]),
        (MODEL, []),
    ],
)
def test_a_field_with_nothing_behind_its_colon_is_taken_with_a_warning(tmp_path, capsys, text, warned):
    path = tmp_path / "m.yaml"
    path.write_text(text)
    given = argparse.Namespace(
        files=[path], manifest_only=True, model_cache=None, provider=None, show_rows=0, gpu_memory=None
    )
    assert main(given) == 0
    told = [line for line in capsys.readouterr().err.splitlines() if "there is nothing after its colon" in line]
    assert len(told) == len(warned)
    for line, field in zip(told, warned, strict=True):
        assert f"{field}: there is nothing after its colon, so that it counts as not written" in line
