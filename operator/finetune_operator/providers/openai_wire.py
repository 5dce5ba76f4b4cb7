"""OpenAI's fine-tuning objects → ours, and a job's method → theirs. Pure: dicts as the SDK gives and takes them.

What is missing is no error. Services with OpenAI's API leave fields out and add states; a state that nobody knows is
one that goes on.
"""

import base64
import binascii
import csv
import io
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from finetune_api.job import FineTuneJobSpec
from finetune_api.job_status import Failure, LossPoint
from finetune_api.reasons import Reason
from finetune_operator.decide.remote import Metrics, RemoteJob, RemoteState, at
from finetune_operator.providers.ports import RemoteFile
from finetune_operator.runtime.logs import redact

Wire = Mapping[str, Any]

OPENAI_HOST = "api.openai.com"

_STATES: dict[str, RemoteState] = {
    "validating_files": "Queued",
    "pending": "Queued",  # Azure's word for a job that was just made
    "queued": "Queued",
    "running": "Active",
    "succeeded": "Succeeded",
    "failed": "Failed",
    "cancelled": "Cancelled",
}
_NOTES = {
    "validating_files": "the provider checks the files",
    "pending": "waiting at the provider",
    "queued": "waiting at the provider",
    "running": "",
    "pausing": "being paused at the provider",
    "paused": "paused at the provider: somebody has to resume or cancel it there",
}
_QUOTA = frozenset({"exceeded_quota", "insufficient_quota", "billing_hard_limit_reached", "quota_exceeded"})
_DATA = re.compile(r"invalid_(training|validation)_file|invalid_n_examples|invalid_file", re.IGNORECASE)
_STEP = re.compile(r"^Step (\d+)/(\d+)")
_LINE = re.compile(r"\b[Ll]ine (\d+)\b")
_MESSAGE_LIMIT = 500


def job(wire: Wire) -> RemoteJob:
    """A fine_tuning.job."""
    status = str(wire.get("status") or "queued")
    ends = wire.get("finished_at") or wire.get("estimated_finish")
    return RemoteJob(
        id=str(wire["id"]),
        state=_STATES.get(status, "Active"),
        created=at(wire.get("created_at") or 0),
        note=_NOTES.get(status, f"the provider calls its state {status[:64]!r}"),
        model=wire.get("fine_tuned_model") or None,
        tokens=wire.get("trained_tokens"),
        ends=at(ends) if ends else None,
        failure=failure(wire.get("error") or {}) if status == "failed" else None,
        results=tuple(str(name) for name in wire.get("result_files") or ()),
        training_file=str(wire.get("training_file") or ""),
        labels={str(key): str(value) for key, value in (wire.get("metadata") or {}).items()},
    )


def method(spec: FineTuneJobSpec) -> dict[str, Any]:
    """How a job is to learn: from answers, or from pairs of a better and a worse one."""
    asked = spec.hyperparameters
    hyperparameters: dict[str, Any] = {"n_epochs": int(asked.epochs), "batch_size": asked.batch_size}
    if asked.learning_rate_multiplier is not None:
        hyperparameters["learning_rate_multiplier"] = asked.learning_rate_multiplier
    if spec.preference is None:
        return {"type": "supervised", "supervised": {"hyperparameters": hyperparameters}}
    return {"type": "dpo", "dpo": {"hyperparameters": hyperparameters | {"beta": spec.preference.beta}}}


def failure(error: Wire) -> Failure:
    """Why a job failed. The provider's words about the data stay there: they may quote a row."""
    code, message, param = (str(error.get(key) or "") for key in ("code", "message", "param"))
    if _DATA.search(code) or param in {"training_file", "validation_file"}:
        line = _LINE.search(message)
        where = f" at line {line[1]}" if line else ""
        text = f"the provider refuses the {param or 'training_file'}{where} ({code or 'no code'})"
        return Failure.because(Reason.DATASET_INVALID, text)
    reason = Reason.QUOTA_EXCEEDED if code in _QUOTA else Reason.PROVIDER_FAILED
    return Failure.because(reason, f"{code or 'no code'}: {plain(message) or 'no message'}")


def plain(message: str) -> str:
    """A provider's sentence, cut short, without what looks like a secret."""
    return redact(message)[:_MESSAGE_LIMIT]


def file(wire: Wire) -> RemoteFile:
    """A file. OpenAI has given up its status; Azure refuses a job for a file that it has not looked at yet."""
    return RemoteFile(
        id=str(wire["id"]),
        name=str(wire.get("filename") or ""),
        bytes=int(wire.get("bytes") or 0),
        ready=wire.get("status") not in {"pending", "running", "notRunning"},
    )


def metrics_of_events(events: Iterable[Wire]) -> Metrics:
    """From events of type metrics, or from messages such as `Step 10/100: training loss=0.71`."""
    train, validation, step, total = [], [], 0, 0
    for event in events:
        data = event.get("data") or {}
        said = _STEP.match(str(event.get("message") or ""))
        here = _whole(data.get("step")) or (int(said[1]) if said else 0)
        if not here:
            continue
        step = max(step, here)
        total = max(total, _whole(data.get("total_steps")) or (int(said[2]) if said else 0))
        train += _point(here, data, *_TRAIN)
        validation += _point(here, data, *_VALIDATION)
    return Metrics(_in_order(train), _in_order(validation), step, total)


def metrics_of_checkpoints(checkpoints: Iterable[Wire]) -> Metrics:
    """From checkpoints, where a provider has no better record."""
    rows = [{**(one.get("metrics") or {}), "step": one.get("step_number")} for one in checkpoints]
    return _metrics_of_rows(rows)


def metrics_of_results(content: bytes) -> Metrics:
    """From the results file: CSV, which OpenAI sends as base64 and others as it is."""
    text = _decoded(content).decode("utf-8-sig", errors="replace")
    return _metrics_of_rows(csv.DictReader(io.StringIO(text)))


def _metrics_of_rows(rows: Iterable[Wire]) -> Metrics:
    train, validation, step = [], [], 0
    for row in rows:
        here = _whole(row.get("step"))
        if here is None:
            continue
        step = max(step, here)
        train += _point(here, row, *_TRAIN)
        validation += _point(here, row, *_VALIDATION)
    return Metrics(_in_order(train), _in_order(validation), step, step)


def _decoded(content: bytes) -> bytes:
    if b"," in content[:256]:
        return content
    try:
        return base64.b64decode(content, validate=True)
    except binascii.Error:
        return content


_TRAIN, _VALIDATION = ("train",), ("valid", "full_valid")
"""How the names of columns begin. Of pairs, too, only losses are documented; rewards are taken where they are sent."""
_MEASURES = ("loss", "reward_accuracy", "reward_margin")


def _point(step: int, row: Wire, *of: str) -> list[LossPoint]:
    """One point; none for a cell that is empty or holds the -1 that stands for nothing."""
    value, accuracy, margin = (_number(_first(row, *(f"{start}_{what}" for start in of))) for what in _MEASURES)
    if value is None or value < 0:
        return []
    return [LossPoint(step=step, value=value, reward_accuracy=accuracy, reward_margin=margin)]


def _first(row: Wire, *names: str) -> Any:
    return next((row[name] for name in names if row.get(name) not in {None, "", -1, "-1"}), None)


def _number(value: Any, kind: Callable[[Any], float] = float) -> float | None:
    try:
        number = kind(value)
    except (TypeError, ValueError):
        return None
    return number if number == number and abs(number) != float("inf") else None  # noqa: PLR0124 - NaN is not itself


def _whole(value: Any) -> int | None:
    number = _number(value)
    return None if number is None else int(number)


def _in_order(points: Iterable[LossPoint]) -> tuple[LossPoint, ...]:
    return tuple(sorted(points, key=lambda point: point.step))
