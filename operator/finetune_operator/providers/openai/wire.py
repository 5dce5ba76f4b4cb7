"""Converts OpenAI's fine-tuning objects to ours, and a job's method to theirs. Pure: dicts as used by the SDK.

Missing fields are no error, as compatible services omit fields and add states. An unknown state counts as running.
"""

import base64
import binascii
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from http import HTTPStatus
from itertools import chain
from typing import Any

from finetune_api.job import FineTuneJobSpec
from finetune_api.job_status import Failure, LossPoint
from finetune_api.reasons import Reason
from finetune_operator.decide.job.remote import UNDATED, Metrics, RemoteJob, RemoteState
from finetune_operator.providers.calls.values import (
    EvenSample,
    Wire,
    complete_lines,
    csv_rows,
    number,
    parse_int,
    parse_time,
    sanitized,
    unknown_state,
)
from finetune_operator.providers.failed_jobs import GONE, UNSAFE, UNSAFE_STEP, failed
from finetune_operator.providers.openai.words import LINE, error_text
from finetune_operator.providers.ports import RemoteFile

_STATES: dict[str, RemoteState] = {
    "validating_files": "Queued",
    "pending": "Queued",  # Azure's word for a job that was just made
    "queued": "Queued",
    "running": "Active",
    "succeeded": "Succeeded",
    "failed": "Failed",
    "cancelled": "Cancelled",
    # Other services' words.
    **dict.fromkeys(("success", "completed", "complete", "finished", "done"), "Succeeded"),
    **dict.fromkeys(
        ("error", "errored", "failure", "failed_validation", "expired", "user_error", "timeout", "timed_out"), "Failed"
    ),
    **dict.fromkeys(("canceled", "aborted", "terminated", "stopped"), "Cancelled"),
}
_NOTES = {
    "validating_files": "the provider checks the files",
    "pending": "waiting at the provider",
    "queued": "waiting at the provider",
    "running": "",
    "pausing": "being paused at the provider",
    "paused": "paused at the provider: somebody has to resume or cancel it there",
}
_QUOTA = re.compile("quota|billing", re.IGNORECASE)
"""In a code."""
_DATA = re.compile(r"invalid_?(training|validation)_?file|invalid_n_examples|invalid_?file", re.IGNORECASE)
_ERRORS = ("error", "error_message", "failure_reason", "status_message")
"""Fields with the reason for a job's failure."""
_READ_LIMIT = 16 * 1024
_STEP = re.compile(r"^Step (\d+)/(\d+)")
_BASE64 = re.compile(rb"[A-Za-z0-9+/=\s]*")


def job(wire: Wire) -> RemoteJob:
    """A fine_tuning.job."""
    status, model = str(wire.get("status") or "queued"), _model(wire.get("fine_tuned_model"))
    state = _state(wire)
    note = _NOTES.get(_normalized(status), unknown_state(status))
    nameless = state == "Succeeded" and not model
    if nameless:
        state, note = "Active", "the provider has not named the model yet"
    return RemoteJob(
        id=_id(wire),
        state=state,
        created=parse_time(wire.get("created_at")) or UNDATED,
        note=note,
        model=model,
        nameless=nameless,
        tokens=_count(wire.get("trained_tokens")),
        ends=parse_time(wire.get("finished_at")) or parse_time(wire.get("estimated_finish")),
        failure=failure(_first(wire, *_ERRORS)) if state == "Failed" else None,
        results=tuple(str(_fields(one).get("id") or one) for one in _list(wire.get("result_files")) if one),
        training_file=str(wire.get("training_file") or ""),
        base=sanitized(str(wire.get("model") or ""))[:256],
        suffix=str(wire.get("suffix") or wire.get("user_provided_suffix") or ""),
        labels={str(key): str(value) for key, value in _fields(wire.get("metadata")).items()},
    )


def has_ended(wire: Wire) -> bool:
    """Whether an answer says that its job has ended; False for an answer that is not a job."""
    return _state(wire) not in {"Queued", "Active"} and bool(wire.get("status"))


def _normalized(status: str) -> str:
    """A state in OpenAI's spelling: others use capitals, dashes or a `JOB_STATE_` prefix."""
    return re.sub(r"[\s-]+", "_", status.strip().casefold()).removeprefix("job_state_")


def _state(wire: Wire) -> RemoteState:
    """A job's state. An unknown one is derived from other fields: a job without an end is running."""
    known = _STATES.get(_normalized(str(wire.get("status") or "queued")))
    if known is not None or parse_time(wire.get("finished_at")) is None:
        return known or "Active"
    if _model(wire.get("fine_tuned_model")):
        return "Succeeded"
    return "Failed" if error_text(wire.get("error")).words else "Active"


def reaches_back_to(jobs: Sequence[RemoteJob], since: datetime) -> bool:
    """Whether a list is sorted newest first as far as it was read, and has reached jobs older than `since`."""
    times = [job.created for job in jobs if job.dated]
    return bool(times) and times[-1] < since and times[-1] < times[0] and times == sorted(times, reverse=True)


def confirms_deletion(status: int, content: bytes) -> bool:
    """Whether an answer confirms a deletion: status 204, or the field `deleted`."""
    try:
        return status == HTTPStatus.NO_CONTENT or bool(_fields(json.loads(content)).get("deleted"))
    except ValueError:
        return False


def is_deleted(wire: Wire) -> bool:
    """Whether an object that is still returned is marked as deleted or being deleted."""
    return str(wire.get("status") or "").casefold() in {"deleted", "deleting"}


def _fields(value: Any) -> Wire:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> Sequence[Any]:
    """The list; a single name or object becomes a list of one."""
    return value if isinstance(value, list | tuple) else (value,) if isinstance(value, str | Mapping) else ()


def _id(wire: Wire) -> str:
    """The object's ID.

    Raises:
        LookupError: it has none, so the answer does not say what was created.
    """
    if wire["id"] in {None, ""}:
        raise LookupError
    return str(wire["id"])


def _model(told: Any) -> str | None:
    """The tuned model's name; None if the value cannot be a name."""
    name = _fields(told).get("id") or _fields(told).get("name") or told
    return (name.strip() or None) if isinstance(name, str) else None


def method(spec: FineTuneJobSpec) -> dict[str, Any]:
    """The method of a job's request: supervised, or DPO for preference pairs."""
    asked = spec.hyperparameters
    hyperparameters: dict[str, Any] = {"n_epochs": int(asked.epochs), "batch_size": asked.batch_size}
    if asked.learning_rate_multiplier is not None:
        hyperparameters["learning_rate_multiplier"] = asked.learning_rate_multiplier
    if spec.preference is None:
        return {"type": "supervised", "supervised": {"hyperparameters": hyperparameters}}
    return {"type": "dpo", "dpo": {"hyperparameters": hyperparameters | {"beta": spec.preference.beta}}}


def failure(error: Any) -> Failure:
    """Why a job failed, without the provider's messages about data, which may quote a row."""
    told, all_of_it = error_text(error), str(error)[:_READ_LIMIT]
    code, param = told.code, told.param
    if _DATA.search(code) or param in {"training_file", "validation_file"}:
        line = LINE.search(all_of_it)
        which = f"{param or 'training_file'} ({code or 'no code'})"
        if not line and GONE.search(all_of_it):
            return failed(f"the provider has no such file any more: {which}")
        where = f" at {line[1].lower()} {line[2]}" if line else ""
        unsafe = ": its moderation blocks what is in it" if UNSAFE.search(all_of_it) else ""
        text = f"the provider refuses the {param or 'training_file'}{where} ({code or 'no code'}){unsafe}"
        found = Failure.because(Reason.DATASET_INVALID, text)
        return found.model_copy(update={"next_step": UNSAFE_STEP}) if unsafe else found
    text = ": ".join(filter(None, (code, told.words))) or "the provider gives no reason"
    return Failure.because(Reason.QUOTA_EXCEEDED, text) if _QUOTA.search(code) else failed(text)


def file(wire: Wire) -> RemoteFile:
    """A file. OpenAI deprecated its status, but Azure refuses jobs whose files are not processed yet."""
    status = str(wire.get("status") or "").casefold()
    return RemoteFile(
        id=_id(wire),
        name=str(wire.get("filename") or ""),
        bytes=_count(wire.get("bytes")) or 0,
        ready=status not in {"pending", "running", "notrunning"},
        unusable=status in {"error", "failed"},
    )


def metrics_of_events(events: Iterable[Wire]) -> Metrics:
    """From events of type metrics, or from messages such as `Step 10/100: training loss=0.71`."""
    train, validation, step, total = [], [], 0, 0
    for event in events:
        data = _fields(event.get("data"))
        said = _STEP.match(str(event.get("message") or ""))
        here = _count(data.get("step")) or (said and _count(said[1])) or 0
        if not here:
            continue
        step = max(step, here)
        total = max(total, _count(data.get("total_steps")) or (said and _count(said[2])) or 0)
        train += _point(here, data, *_TRAIN)
        validation += _point(here, data, *_VALIDATION)
    return Metrics(_in_order(train), _in_order(validation), step, total)


def metrics_of_checkpoints(checkpoints: Iterable[Wire]) -> Metrics:
    """From checkpoints, if the provider has no better record."""
    rows = [{**_fields(one.get("metrics")), "step": one.get("step_number")} for one in checkpoints]
    return _metrics_of_rows(rows)


def metrics_of_results(content: bytes) -> Metrics:
    """From the results file: CSV, which OpenAI encodes as Base64."""
    return _metrics_of_rows(csv_rows(complete_lines(_decoded(content), read=len(content))))


def _metrics_of_rows(rows: Iterable[Wire]) -> Metrics:
    curves, step = {of: EvenSample[tuple[int, Wire]]() for of in (_TRAIN, _VALIDATION)}, 0
    for row in rows:
        here = _count(_first(row, "step", "step_number", "global_step"))
        if here is None:
            continue
        step = max(step, here)
        for of, curve in curves.items():
            if _has_loss(row, of):
                curve.add((here, row))
    found = {of: [_point(at, row, *of) for at, row in curve.found()] for of, curve in curves.items()}
    train, validation = (_in_order(chain.from_iterable(found[of])) for of in (_TRAIN, _VALIDATION))
    return Metrics(train, validation, step, step)


def _decoded(content: bytes) -> bytes:
    """Decode Base64, possibly truncated or in lines; other content is returned unchanged."""
    if not _BASE64.fullmatch(content[:256]):
        return content
    packed = b"".join(content.split())
    try:
        return base64.b64decode(packed[: len(packed) // 4 * 4], validate=True)
    except binascii.Error:
        return content


_TRAIN, _VALIDATION = ("train_", "training_", ""), ("valid_", "full_valid_", "validation_", "eval_")
"""Prefixes of column names, OpenAI's and Azure's first.

For preference pairs, too, only losses are documented; rewards are read if present."""
_MEASURES = ("loss", "reward_accuracy", "reward_margin")


def _point(step: int, row: Wire, *of: str) -> list[LossPoint]:
    """One point; none if the cell is empty or has the placeholder -1."""
    value, accuracy, margin = (number(_first(row, *(f"{start}{what}" for start in of))) for what in _MEASURES)
    if value is None or value < 0:
        return []
    return [LossPoint(step=step, value=value, reward_accuracy=accuracy, reward_margin=margin)]


def _has_loss(row: Wire, of: Sequence[str]) -> bool:
    """Whether a row has a point of a curve; `_point` is called only for sampled rows."""
    value = number(_first(row, *(f"{start}loss" for start in of)))
    return value is not None and value >= 0


def _first(row: Wire, *names: str) -> Any:
    return next((row[name] for name in names if row.get(name) not in (None, "", -1, "-1")), None)


def _count(value: Any) -> int | None:
    count = parse_int(value)
    return None if count is None or count < 0 else count


def _in_order(points: Iterable[LossPoint]) -> tuple[LossPoint, ...]:
    return tuple(sorted(points, key=lambda point: point.step))
