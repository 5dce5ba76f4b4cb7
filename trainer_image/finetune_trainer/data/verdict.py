"""The verdict on a job's dataset: reads every row of every split, counts the invalid ones and names the first.

Used by `check`, `run` and the pod's `train`. The verdict is copied to status.dataset; it points at rows without quoting
them.
"""

from typing import TYPE_CHECKING

from finetune_api.evaluation import Evaluation
from finetune_api.job import FineTuneJobSpec
from finetune_api.reasons import Reason
from finetune_api.verdict import SPLITS, DatasetVerdict, SharedRows
from finetune_api.words import counted, cut
from finetune_trainer.data.split_check import SplitCheck
from finetune_trainer.data.tokenizer.chat_tokenizer import ChatTokenizer
from finetune_trainer.errors import TrainerError

if TYPE_CHECKING:
    from finetune_trainer.data.fingerprints import CommonRows, Shared

_LIMITS = {"message": 4096, "next_step": 1024, "warning": 512}
MOST_WARNINGS = 16
"""Maximum number of warnings in one verdict."""


def check_dataset(
    spec: FineTuneJobSpec,
    *,
    tokenizer: ChatTokenizer | None,
    no_tokens: str = "the base model is not at hand",
    allow_local: bool = False,
    air_gapped: bool = False,
) -> DatasetVerdict:
    """Read all splits of a job and decide whether they can be used.

    Without a `tokenizer`, for the reason given in `no_tokens`, tokens are not counted.

    Returns:
        The verdict. Problems of data or stores are in it and are never raised.
    """
    from finetune_trainer.data.fingerprints import CommonRows, Fingerprints  # needs 50 MiB for pyarrow: not for servers

    if spec.preference is not None and tokenizer is not None and tokenizer.encoder_decoder:
        return failed(_no_pairs_for(spec.base_model))
    given = [(name, data) for name in SPLITS if (data := getattr(spec.dataset, name)) is not None]
    closely = tokenizer is not None  # takes no time compared with counting tokens
    questions = closely and spec.preference is None
    with Fingerprints(len(given), questions=questions, folded=closely) as fingerprints:
        checks = [
            SplitCheck(name, data, spec, index, fingerprints, tokenizer) for index, (name, data) in enumerate(given)
        ]
        for check in checks:
            check.read(allow_local=allow_local, air_gapped=air_gapped)
        try:
            duplicates, shared = fingerprints.compare()
            common = CommonRows(shared, fingerprints.nearly_shared())
            contradictions = fingerprints.contradictions() or [None] * len(checks)
        except TrainerError as error:
            return failed(error)
    names = [check.file for check in checks]
    for check, found, contradiction in zip(checks, duplicates, contradictions, strict=True):
        check.duplicates, check.contradiction = found, contradiction
        check.names_fit_other_split = any(other.rows > other.bad_rows for other in checks if other is not check)
        check.label = f"{check.file} ({check.split})" if names.count(check.file) > 1 else check.file
    return _verdict(checks, common, spec, None if tokenizer else no_tokens, tokenizer)


def require_valid(verdict: DatasetVerdict) -> None:
    """Raise unless the dataset can be used.

    Raises:
        TrainerError: with the verdict's reason, message and next step.
    """
    if not verdict.valid:
        raise TrainerError(verdict.reason, verdict.message, verdict.next_step)


def failed(error: TrainerError) -> DatasetVerdict:
    """The verdict if nothing could be read at all."""
    return DatasetVerdict(valid=False, reason=error.reason, message=error.message, next_step=error.next_step)


def _no_pairs_for(base_model: str) -> TrainerError:
    return TrainerError(
        Reason.SPEC_INVALID,
        f"spec.preference: {base_model} is an encoder-decoder; two answers can be learnt from by causal models only",
        "Remove spec.preference, or set spec.baseModel to a causal model, and apply the job under a new name.",
    )


def _verdict(
    checks: list[SplitCheck],
    common: "CommonRows",
    spec: FineTuneJobSpec,
    no_tokens: str | None,
    tokenizer: ChatTokenizer | None,
) -> DatasetVerdict:
    bad = [check for check in checks if not check.usable]
    first = bad[0] if bad else None
    reason = Reason.VALID if first is None else first.error.reason if first.error else Reason.DATASET_INVALID
    step = None if first is None else first.next_step() or TrainerError(reason, "").next_step
    message = "; ".join(check.complaint() for check in bad) if bad else _praise(checks, tokenizer)
    splits = {check.split: check.verdict() for check in checks}
    return DatasetVerdict(
        valid=first is None,
        reason=reason,
        message=cut(message, _LIMITS["message"]),
        next_step=None if step is None else cut(step, _LIMITS["next_step"]),
        train=splits.get("train"),
        validation=splits.get("validation"),
        test=splits.get("test"),
        shared_rows=[_shared_rows(one, checks) for one in common.same],
        warnings=_warnings(checks, common, spec, no_tokens, tokenizer),
    )


def _praise(checks: list[SplitCheck], tokenizer: ChatTokenizer | None) -> str:
    rows = ", ".join(f"{check.label} has {_rows(check.rows)}" for check in checks)
    tokens = sum(check.tally.tokens for check in checks)
    return f"Every row can be used: {rows}" + (f"; {tokens:,} tokens" if tokenizer else "")


def _shared_rows(shared: "Shared", checks: list[SplitCheck]) -> SharedRows:
    earlier, later = checks[shared.earlier], checks[shared.later]
    examples = [f"{later.label} {position}" for position in shared.examples]
    return SharedRows(splits=[earlier.split, later.split], rows=shared.rows, examples=examples)


def _warnings(
    checks: list[SplitCheck],
    common: "CommonRows",
    spec: FineTuneJobSpec,
    no_tokens: str | None,
    tokenizer: ChatTokenizer | None,
) -> list[str]:
    found = [warning for check in checks for warning in check.warnings()]
    for one in common.same:
        earlier, later = checks[one.earlier], checks[one.later]
        found.append(f"{later.label}: {_rows(one.rows)} also in {earlier.label} (the first: {one.examples[0]})")
    for near in common.nearly_shared:
        earlier, later = checks[near.earlier], checks[near.later]
        how = f"{near.how.format(earlier.label)} (the first: {near.first})"
        found.append(f"{later.label}: {_rows(near.rows)} {how}")
    found += sorted({note for check in checks for note in check.tally.notes})
    if tokenizer is not None and not tokenizer.has_own_template:
        found.append(f"{spec.base_model} has no chat template: its turns are put one under the other, as plain text")
    if no_tokens is not None:
        found.append(f"tokens were not counted: {no_tokens}")
    if spec.dataset.test is None and spec.evaluation != Evaluation():
        found.append("spec.evaluation has no effect: without spec.dataset.test nothing is measured")
    return [cut(warning, _LIMITS["warning"]) for warning in found][:MOST_WARNINGS]


def _rows(count: int) -> str:
    return counted(count, "row")
