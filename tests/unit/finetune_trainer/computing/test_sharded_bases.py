"""Base models that are shared out among ranks are looked at as closely as those that each rank holds."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from finetune_api.exit_codes import ExitCode
from finetune_api.reasons import Reason
from finetune_api.trainer import read_termination_message
from tests.assets.tiny_model import NAME
from tests.unit.finetune_trainer.computing import ranks

BOTH = {"method": "Full", "lora": None}


@pytest.fixture
def base(tiny_model, tmp_path):
    """A copy of the tiny model, in the place of a cache, that a test may change."""
    shutil.copytree(tiny_model / NAME, tmp_path / "cache" / NAME)
    return tmp_path / "cache" / NAME


def edit(base: Path, **tensors: torch.Tensor) -> None:
    path = base / "model.safetensors"
    save_file(
        load_file(path) | {name.replace("__", "."): value for name, value in tensors.items()}, path, {"format": "pt"}
    )


def shared(folder: Path, base: Path, **spec):
    return ranks.job_of(folder, base.parents[1], **({"hyperparameters": {"epochs": 0.2}} | spec))


def failure(job):
    return read_termination_message((Path(job.output).parent / "messages" / "0").read_text()).failure


def test_a_base_that_computes_no_numbers_is_refused_before_it_is_trained(base, tmp_path):
    edit(base, model__norm__weight=torch.full((32,), 3e38))
    job = shared(tmp_path / "job", base, **BOTH)
    codes = ranks.ended(ranks.started(job, 2, ranks.do_sharing))
    assert codes == [ExitCode.MODEL_UNUSABLE] * 2, "each rank has found it by itself: none waits for the other"
    assert failure(job).reason == Reason.MODEL_UNUSABLE
    assert "before any training its loss is not a finite number" in failure(job).message
    assert not ranks.steps_done(job)


def test_a_damaged_file_is_said_by_the_first_rank_and_keeps_nobody_waiting(base, tmp_path):
    path = base / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    job = shared(tmp_path / "job", base)
    assert ranks.ended(ranks.started(job, 2, ranks.do_sharing)) == [ExitCode.MODEL_UNUSABLE, ExitCode.INTERRUPTED]
    assert "its weights are damaged: model.safetensors has " in failure(job).message


@pytest.mark.parametrize("spec", [BOTH, {"lora": {}}], ids=["Full", "LoRA"])
def test_a_head_that_the_file_has_beside_tied_embeddings_is_learnt_from_and_saved(base, tmp_path, spec):
    assert json.loads((base / "config.json").read_text())["tie_word_embeddings"] is True
    table = load_file(base / "model.safetensors")["model.embed_tokens.weight"]
    edit(base, lm_head__weight=torch.randn(table.shape, generator=torch.Generator().manual_seed(3)))
    one, both = (shared(tmp_path / name, base, **spec) for name in ("one", "both"))
    both = both.model_copy(update={"spec": one.spec})
    runs = [ranks.started(one, 1), ranks.started(both, 2, ranks.do_sharing)]
    assert [ranks.ended(run) for run in runs] == [[0], [0, 0]]
    losses = [[line["loss"] for line in ranks.learnt(job) if "loss" in line] for job in (one, both)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    if spec == BOTH:
        heads = [load_file(Path(job.output) / "model" / "model.safetensors")["lm_head.weight"] for job in (one, both)]
        torch.testing.assert_close(heads[1], heads[0], rtol=0.05, atol=5e-3)
