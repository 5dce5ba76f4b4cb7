"""Which numbers a job computes in, and what is said of its memory before that is known."""

import pytest
import torch

from finetune_api.job import FineTuneJobSpec
from finetune_api.verdict import DatasetVerdict
from finetune_trainer.models import memory_fit, model_shape
from finetune_trainer.models.memory_fit import Room
from finetune_trainer.training.tuning import compute_dtype_of
from tests.unit.finetune_trainer.jobs import make_job
from tests.unit.finetune_trainer.models.estimates import GIB, LLAMA_8B, spec_of

ON_CPU = {"gpusPerNode": 0}


@pytest.mark.parametrize(
    ("able", "spec", "expected"),
    [
        ({"avx512_bf16": True}, {}, torch.bfloat16),
        ({"amx_bf16": True}, {"method": "QLoRA"}, torch.bfloat16),
        ({"bf16": True}, {}, torch.bfloat16),
        ({"avx512_bf16": False, "avx512_f": True}, {}, torch.float32),
        ({}, {"hyperparameters": {"precision": "BFloat16"}}, torch.bfloat16),
        ({"amx_bf16": True}, {"hyperparameters": {"precision": "Float32"}}, torch.float32),
        ({"amx_bf16": True}, {"method": "Full"}, torch.float32),
        ({"amx_bf16": True}, {"method": "Full", "hyperparameters": {"precision": "BFloat16"}}, torch.bfloat16),
        ({"amx_bf16": True}, {"resources": ON_CPU | {"nodes": 2}}, torch.float32),
    ],
)
def test_auto_takes_16_bits_for_a_frozen_base_where_this_cpu_multiplies_them(
    able, spec, expected, tmp_path, monkeypatch
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    hyper = {"precision": "Auto"} | spec.get("hyperparameters", {})
    assert compute_dtype_of(make_job(tmp_path, tmp_path, **{**spec, "hyperparameters": hyper})) is expected


@pytest.mark.parametrize(("emulated", "expected"), [(False, torch.bfloat16), (True, torch.float32)])
def test_auto_takes_16_bits_on_a_gpu_that_has_them_and_does_not_only_convert(emulated, expected, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *, including_emulation: including_emulation >= emulated)
    assert compute_dtype_of(make_job(tmp_path, tmp_path, hyperparameters={"precision": "Auto"})) is expected


@pytest.mark.parametrize(
    ("precision", "gibibytes", "fits", "refused"),
    [
        ("Auto", 60, True, False),
        ("Auto", 24, False, False),
        ("Auto", 12, False, True),
        ("BFloat16", 24, True, False),
        ("Float32", 24, False, True),
    ],
)
def test_before_the_cpu_is_known_only_what_fits_in_no_numbers_is_refused(
    precision, gibibytes, fits, refused, monkeypatch
):
    monkeypatch.setattr(model_shape, "of_folder", lambda _: LLAMA_8B)
    spec = FineTuneJobSpec.model_validate(spec_of(precision=precision).wire() | {"resources": ON_CPU})
    limit = int(gibibytes * GIB)
    verdict = DatasetVerdict(valid=True, reason="Valid", message="")
    use, error = memory_fit.judged(spec, None, verdict, Room("CPU", limit, limit))
    assert (use.fits, error is not None) == (fits, refused)
    if gibibytes == 24 and not fits:
        assert "hyperparameters.precision: BFloat16" in use.advice
