"""A pod that has asked for GPUs and sees none ends at once: it would train on its CPU, and hold the GPU, for weeks."""

import warnings

import pytest

from finetune_api.names import GPUS_VARIABLE
from tests.unit.finetune_trainer.jobs import make_job
from tests.unit.finetune_trainer.training_runs import do

OLD = "CUDA initialization: The NVIDIA driver on your system is too old (found version 11040)."


@pytest.fixture(autouse=True)
def unseen(monkeypatch):
    """No GPU can be used here, and the driver says why."""

    def is_available():
        warnings.warn(f"{OLD}\nPlease update your GPU driver.", stacklevel=1)
        return False

    monkeypatch.setattr("torch.cuda.is_available", is_available)


def test_the_job_ends_before_anything_is_read_with_the_drivers_words(tmp_path, tiny_model, monkeypatch):
    monkeypatch.setenv(GPUS_VARIABLE, "2")
    code, report, phases = do(make_job(tmp_path, tiny_model))
    assert (code, report.failure.reason, phases) == (85, "GPUUnavailable", ["Validating", "Failed"])
    assert report.failure.message == f"the pod has asked for 2 GPUs and can use none: {OLD}"
    assert "runtimeClassName" in report.failure.next_step
    assert report.dataset is None


@pytest.mark.filterwarnings("ignore:CUDA initialization")
def test_who_asked_for_none_trains_on_the_cpu(tmp_path, tiny_model, monkeypatch):
    monkeypatch.delenv(GPUS_VARIABLE, raising=False)
    code, _, _ = do(make_job(tmp_path, tiny_model, splits=("train",)))
    assert code == 0
