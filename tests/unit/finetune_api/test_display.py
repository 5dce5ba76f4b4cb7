"""What `kubectl get` shows."""

import pytest

from finetune_api.base import Display
from finetune_api.display import job_display, model_display, rounded, short_name
from finetune_api.job_status import FineTuneJobStatus, Progress
from finetune_api.model import FineTunedModelStatus


@pytest.mark.parametrize(
    ("model", "short"),
    [
        ("HuggingFaceTB/SmolLM2-135M-Instruct", "SmolLM2-135M-Instruct"),
        ("gpt-4.1-mini-2025-04-14", "gpt-4.1-mini-2025-04-14"),
        ("a/b/c", "c"),
    ],
)
def test_base_models_are_shown_without_their_owner(model: str, short: str) -> None:
    assert short_name(model) == short


@pytest.mark.parametrize(
    ("loss", "text"),
    [
        (None, None),
        (0.41236, "0.412"),
        (12.3456, "12.346"),
        (0.0, "0.000"),
        (0.00004567, "4.6e-05"),
        (0.001, "0.001"),
        (1e308, "1.0e+308"),
    ],
)
def test_losses_are_rounded_but_never_to_nothing(loss: float | None, text: str | None) -> None:
    assert rounded(loss) == text


def test_a_job_shows_base_progress_and_losses() -> None:
    status = FineTuneJobStatus(
        progress=Progress(step=120, total_steps=225, percent=53), train_loss=0.4118, eval_loss=0.447
    )
    assert job_display("HuggingFaceTB/SmolLM2-135M-Instruct", "LoRA", status, "huggingFace") == Display(
        base="SmolLM2-135M-Instruct", method="LoRA", progress="53%", train_loss="0.412", eval_loss="0.447"
    )


def test_a_job_that_has_not_begun_shows_its_base_and_method() -> None:
    assert job_display("a/b", "QLoRA", FineTuneJobStatus(), None).wire() == {"base": "b", "method": "QLoRA"}


@pytest.mark.parametrize(
    ("provider", "method"),
    [("huggingFace", "LoRA"), ("sageMaker", "LoRA"), ("openAI", None), ("azureOpenAI", None), ("bedrock", None)],
)
def test_a_method_is_shown_where_the_job_chooses_it(provider: str, method: str | None) -> None:
    assert job_display("a/b", "LoRA", FineTuneJobStatus(), provider).method == method


def test_a_model_shows_the_active_versions_base_and_loss() -> None:
    status = FineTunedModelStatus(base_model="a/b", eval_loss=0.447)
    assert model_display(status).wire() == {"base": "b", "evalLoss": "0.447"}


def test_a_model_without_versions_shows_nothing() -> None:
    assert model_display(FineTunedModelStatus()).wire() == {}
