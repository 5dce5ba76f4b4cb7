"""What a provider asks of a dataset before it takes it: counts and sizes, checked before a cent is spent.

What a row must look like is the same everywhere and stands in `columns`; the file to send is made in `provider_file`.
"""

from dataclasses import dataclass

from finetune_api.names import UPLOAD_MAX_BYTES
from finetune_api.reasons import Reason
from finetune_api.verdict import DatasetVerdict
from finetune_trainer.errors import TrainerError

MIB = 1024 * 1024


@dataclass(frozen=True)
class ProviderRules:
    """The rules of one provider."""

    title: str
    """As messages call it."""
    min_rows: int = 1
    """Rows of the training set at least."""
    max_bytes: int = UPLOAD_MAX_BYTES
    """Bytes of one converted file at most."""
    byte_order_mark: bool = False
    """Whether files begin with the UTF-8 byte order mark."""


RULES = {
    "openAI": ProviderRules("OpenAI", min_rows=10),
    # Services with OpenAI's API have minima of their own: theirs to check, and a refused file costs nothing.
    "openAICompatible": ProviderRules("the service"),
    "azureOpenAI": ProviderRules("Azure OpenAI", min_rows=10, byte_order_mark=True),
}
"""By the name that a PrepareJob carries. OpenAI's and Azure's fine-tuning guides, as of November 2026."""


def require_rows(rules: ProviderRules, verdict: DatasetVerdict) -> None:
    """Go on only with enough rows.

    Raises:
        TrainerError: DatasetInvalid, with both counts.
    """
    train = verdict.train
    if train is None or train.rows >= rules.min_rows:
        return
    raise TrainerError(
        Reason.DATASET_INVALID,
        f"{train.file}: {train.rows:,} rows; {rules.title} tunes on at least {rules.min_rows:,}",
        "Add rows, and apply the job under a new name.",
    )


def require_size(rules: ProviderRules, name: str, size: int) -> None:
    """Go on only with a file that is small enough once converted.

    Raises:
        TrainerError: DatasetInvalid, with both sizes.
    """
    if size <= rules.max_bytes:
        return
    raise TrainerError(
        Reason.DATASET_INVALID,
        f"{name}: more than {rules.max_bytes // MIB:,} MiB as JSON lines; {rules.title} takes no larger file",
        "Use fewer or shorter rows, and apply the job under a new name.",
    )
