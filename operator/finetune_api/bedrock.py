"""What Bedrock's families of base models require: the data format, and limits of hyperparameters and rows.

From AWS's user guides as of November 2026. Limits that are not in the guides are left to Bedrock, which checks again.
"""

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from finetune_api.catalogue import tuned_from
from finetune_api.job import FineTuneJobSpec

Format = Literal["Conversation", "Messages", "Pairs"]
"""Bedrock's conversation schema; messages with a separate system text; prompt and completion only."""

Bounds = tuple[float, float]


@dataclass(frozen=True)
class Family:
    """Base models with the same requirements."""

    title: str
    globs: tuple[str, ...]
    """Patterns of model IDs."""
    format: Format
    epochs: Bounds | None = None
    batch_size: Bounds | None = None
    """None: cannot be set."""
    learning_rate: Bounds | None = None
    """None: cannot be set."""
    learning_rate_multiplier: Bounds | None = None
    """None: cannot be set."""
    min_rows: int = 1
    """Training rows."""
    min_all_rows: int = 1
    """Training and validation rows together."""
    max_rows: int = 10_000
    """The same; a quota of the account that AWS may raise."""
    max_validation_rows: int | None = None
    max_tokens: int | None = None
    """Of a row; None: not in the guides."""
    reserved_words: bool = False
    """Whether a role's name with a colon, or a marker of the chat format, in a row fails the job."""
    validation: bool = True


FAMILIES = (
    Family("Nova 2", ("amazon.nova-2-*",), "Conversation", learning_rate=(0, 1), max_rows=20_000, reserved_words=True,
           validation=False),
    Family("Nova", ("amazon.nova-*",), "Conversation", (1, 5), learning_rate=(1e-6, 1e-4), max_rows=20_000,
           reserved_words=True),
    Family("Claude 3", ("anthropic.claude-3-*",), "Messages", (1, 10), (4, 256), learning_rate_multiplier=(0.1, 2),
           min_rows=32, max_validation_rows=1_000, max_tokens=32_000),
    Family("Llama 3.2 90B", ("meta.llama3-2-90b-*",), "Conversation", (1, 10), (1, 1), (0, 0.1), min_all_rows=100,
           max_tokens=10_000),
    Family("Llama 3.2 and 3.3", ("meta.llama3-2-*", "meta.llama3-3-*"), "Conversation", (1, 10), (1, 1), (0, 0.1),
           min_all_rows=100, max_tokens=16_000),
    Family("Llama 3.1", ("meta.llama3-1-*",), "Pairs", (1, 10), (1, 1), (0, 0.1), min_all_rows=100, max_tokens=16_000),
    Family("Titan", ("amazon.titan-text-*",), "Pairs", batch_size=(1, 64), learning_rate=(0, 0.1), max_tokens=4_096),
    Family("Command", ("cohere.command-*",), "Pairs", batch_size=(1, 64), learning_rate=(0, 0.1),
           max_validation_rows=1_000, max_tokens=4_096 + 2_048),
)  # fmt: skip


def family_of(base_model: str) -> Family | None:
    """The first family that matches a model's ID or ARN; for a tuned model, that of its base."""
    name = tuned_from(base_model) or base_model.rpartition("/")[2]
    return next((one for one in FAMILIES if any(fnmatchcase(name, glob) for glob in one.globs)), None)


def known() -> str:
    """The families' titles, for messages."""
    return ", ".join(one.title for one in FAMILIES)


def other_region(spec: FineTuneJobSpec, region: str | None) -> list[str]:
    """That the base model's ARN is of another region: Bedrock tunes only models of its own.

    Args:
        spec: of the job.
        region: of the connection; None if it is not known.
    """
    parts = spec.base_model.split(":")
    if region is None or spec.adopt is not None or parts[0] != "arn" or len(parts) < 5 or parts[3] in {"", region}:
        return []
    return [
        f"baseModel: it is a model of {parts[3]}, and the connection's region is {region}; write one of that region"
    ]


def out_of_bounds(spec: FineTuneJobSpec) -> list[str]:
    """Fields with values that the family does not support, and what to write: checked before pods run for nothing."""
    asked, family = spec.hyperparameters, family_of(spec.base_model)
    if family is None:
        return []
    batch_size = asked.batch_size if asked.is_set("batch_size") else None
    wanted = (
        ("epochs", asked.epochs, family.epochs, True),
        ("learningRate", asked.learning_rate, family.learning_rate, False),
        ("learningRateMultiplier", asked.learning_rate_multiplier, family.learning_rate_multiplier, False),
        ("batchSize", batch_size, family.batch_size, False),
    )
    found = []
    for field, value, bounds, always in wanted:
        if value is None or (always and bounds is None):
            continue
        if bounds is None:
            found.append(f"hyperparameters.{field}: {family.title} takes none; leave it out")
        elif not bounds[0] <= value <= bounds[1]:
            found.append(f"hyperparameters.{field}: {family.title} takes {bounds[0]:g} to {bounds[1]:g}")
    return found
