"""A provider's requirements for a dataset, checked before anything costs money.

Requirements for every row are in `columns`, the format of a provider's rows is in `rows`, and `file` writes the file.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from finetune_api import bedrock
from finetune_api.job import FineTuneJobSpec
from finetune_api.names import UPLOAD_MAX_BYTES
from finetune_api.reasons import Reason
from finetune_api.verdict import SPLITS, DatasetVerdict, SplitName
from finetune_api.words import counted
from finetune_trainer.data.provider import rows
from finetune_trainer.data.provider.rows import Form, Problem
from finetune_trainer.errors import TrainerError

MIB = 1024 * 1024


@dataclass(frozen=True)
class ProviderRules:
    """The rules of one provider."""

    title: str
    """Its name in messages."""
    min_rows: int = 1
    """Minimum rows of the training set."""
    min_all_rows: int = 1
    """Minimum rows of training and validation together."""
    max_rows: int | None = None
    """Maximum of the same."""
    max_validation_rows: int | None = None
    validation: bool = True
    """Whether it accepts a validation set."""
    max_bytes: int = UPLOAD_MAX_BYTES
    """Maximum bytes of one converted file."""
    byte_order_mark: bool = False
    """Whether files must begin with a UTF-8 byte order mark."""
    form: Form = rows.as_messages
    max_tokens: int | None = None
    """Maximum tokens of a row."""
    cuts_longer: bool = True
    """Whether the provider truncates longer rows; otherwise they fail the job. Our estimate is too rough to refuse."""
    problems: Sequence[Problem] = ()
    """Checks of a row, in order."""
    billed_by_tokens: bool = True
    """Whether the price of tuning depends on tokens."""
    splits: tuple[SplitName, ...] = ("train", "validation")
    """The splits that the provider receives."""


MAX_EXAMPLE_TOKENS = 65_536
"""Maximum tokens of a row, for every model that can be tuned at OpenAI and Azure; from their tables of models."""

RULES = {
    "openAI": ProviderRules("OpenAI", min_rows=10, max_tokens=MAX_EXAMPLE_TOKENS),
    # Services with OpenAI's API have their own minima and check them; a refused file costs nothing.
    "openAICompatible": ProviderRules("the service"),
    "azureOpenAI": ProviderRules("Azure OpenAI", min_rows=10, byte_order_mark=True, max_tokens=MAX_EXAMPLE_TOKENS),
    # Our own trainer, which also evaluates on the test set there.
    "sageMaker": ProviderRules("the trainer", billed_by_tokens=False, splits=SPLITS),
}
"""By the name in a PrepareJob. From OpenAI's and Azure's fine-tuning guides, November 2026."""

_ONE_QUESTION = (rows.not_one_question, rows.longer_than(MAX_EXAMPLE_TOKENS))
_PAIR_RULES: dict[str, tuple[Form, Sequence[Problem]]] = {
    "openAI": (rows.as_preference, _ONE_QUESTION),
    "openAICompatible": (rows.as_preference, ()),
    "azureOpenAI": (rows.as_preference, _ONE_QUESTION),
    "sageMaker": (rows.as_two_answers, ()),
}
"""Format and checks of preference pairs, for providers that support them; from their guides on preferences."""

BEDROCK = "bedrock"
NAMES = (*RULES, BEDROCK)

_FORMS: dict[bedrock.Format, Form] = {
    "Conversation": rows.as_conversation,
    "Messages": rows.as_messages_with_system,
    "Pairs": rows.as_pair,
}


def rules_for(name: str, spec: FineTuneJobSpec) -> ProviderRules:
    """A provider's rules for the rows of a job.

    Raises:
        TrainerError: SpecInvalid, the provider does not support such a job.
        KeyError: the name is unknown.
    """
    rules = _rules_of(name, spec.base_model)
    if spec.preference is None:
        return rules
    if name not in _PAIR_RULES:
        message = f"spec.preference: {rules.title} learns from one answer for each prompt"
        raise TrainerError(Reason.SPEC_INVALID, message, "Remove spec.preference, and apply the job under a new name.")
    form, problems = _PAIR_RULES[name]
    return replace(rules, form=form, problems=problems)


def _rules_of(name: str, base_model: str) -> ProviderRules:
    """Rules by name; Bedrock's depend on the base model's family."""
    if name != BEDROCK:
        return RULES[name]
    family = bedrock.family_of(base_model)
    if family is None:
        message = f"spec.baseModel: {base_model} is of no family that can be tuned at Bedrock ({bedrock.known()})"
        raise TrainerError(Reason.SPEC_INVALID, message)
    shape = rows.not_a_pair if family.format == "Pairs" else rows.not_a_conversation
    return ProviderRules(
        f"Bedrock ({family.title})",
        min_rows=family.min_rows,
        min_all_rows=family.min_all_rows,
        max_rows=family.max_rows,
        max_validation_rows=family.max_validation_rows,
        validation=family.validation,
        max_tokens=family.max_tokens,
        cuts_longer=False,
        form=_FORMS[family.format],
        problems=(
            shape,
            rows.has_unlearnt_answers,
            *((rows.reserved,) if family.reserved_words else ()),
        ),
    )


def require_rows(rules: ProviderRules, verdict: DatasetVerdict) -> None:
    """Raise if there are too few rows, or too many.

    Raises:
        TrainerError: DatasetInvalid, with both counts.
    """
    train, validation = verdict.train, verdict.validation
    if train is None:
        return
    if validation is not None and not rules.validation:
        message = f"{validation.file}: {rules.title} takes no validation set"
        raise TrainerError(Reason.DATASET_INVALID, message, "Remove dataset.validation from the job.")
    validation_rows = validation.rows if validation else 0
    rows = train.rows + validation_rows
    all_described = f"{train.file}: {counted(rows, 'row')}{' with those of validation' if validation_rows else ''}"
    validation_described = f"{validation.file if validation else ''}: {counted(validation_rows, 'row')} of validation"
    for most, given, description in (
        (rules.max_rows, rows, all_described),
        (rules.max_validation_rows, validation_rows, validation_described),
    ):
        if most is not None and given > most:
            message = f"{description}; {rules.title} takes at most {most:,}"
            raise TrainerError(Reason.DATASET_INVALID, message, "Use fewer rows, and apply the job under a new name.")
    too_few = (
        (rules.min_all_rows, rows, f"{all_described}; {rules.title} takes"),
        (rules.min_rows, train.rows, f"{train.file}: {counted(train.rows, 'row')}; {rules.title} tunes on"),
    )
    for fewest, given, description in too_few:
        if given < fewest:
            message = f"{description} at least {fewest:,}"
            raise TrainerError(Reason.DATASET_INVALID, message, "Add rows, and apply the job under a new name.")


def require_size(rules: ProviderRules, name: str, size: int) -> None:
    """Raise if the converted file is too large.

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


def require_rows_as_wanted(rules: ProviderRules, name: str, bad: Sequence[str], count: int) -> None:
    """Raise if the provider would reject rows; `bad` describes the first of the `count` rejected rows.

    Raises:
        TrainerError: DatasetInvalid, with the lines.
    """
    if not count:
        return
    more = "; …" if count > len(bad) else ""
    raise TrainerError(
        Reason.DATASET_INVALID,
        f"{name}: {rules.title} rejects {count:,} of the rows: {'; '.join(bad)}{more}",
        "Correct these rows or leave them out, and apply the job under a new name.",
    )
