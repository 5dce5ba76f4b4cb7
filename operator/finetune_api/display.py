"""What `kubectl get` shows of a job and of a model: short names, percent, rounded losses. Pure."""

from finetune_api.base import Display
from finetune_api.job_status import FineTuneJobStatus
from finetune_api.model import FineTunedModelStatus

OWN_RECIPE = frozenset({"huggingFace", "sageMaker"})
"""Blocks of the providers where our own trainer runs: only there the job chooses the method."""


_WIDE = 1e9
"""Custom code may report any loss; this is the largest that fits into a column."""


def job_display(base_model: str, method: str, status: FineTuneJobStatus, provider: str | None) -> Display:
    """The text columns of a FineTuneJob, from its base model, its method, its status, and its provider if known."""
    return Display(
        base=short_name(base_model),
        method=method if provider is None or provider in OWN_RECIPE else None,
        progress=f"{status.progress.percent}%" if status.progress else None,
        train_loss=rounded(status.train_loss),
        eval_loss=rounded(status.eval_loss),
    )


def model_display(status: FineTunedModelStatus) -> Display:
    """The text columns of a FineTunedModel, from its status."""
    return Display(
        base=short_name(status.base_model) if status.base_model else None, eval_loss=rounded(status.eval_loss)
    )


def short_name(model: str) -> str:
    """The model without its owner: `SmolLM2-135M-Instruct` for `HuggingFaceTB/SmolLM2-135M-Instruct`."""
    return model.rstrip("/").rpartition("/")[2]


def rounded(loss: float | None) -> str | None:
    """A loss with three decimals or, if it is too small or too large for that, with two significant digits."""
    if loss is None:
        return None
    return f"{loss:.3f}" if loss == 0 or 0.001 <= abs(loss) < _WIDE else f"{loss:.1e}"
