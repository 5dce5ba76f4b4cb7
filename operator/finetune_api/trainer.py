"""What operator and trainer exchange: the job that a pod gets, and what it reports."""

import re
from functools import partial
from math import isfinite
from typing import Annotated, Any, Literal, TypeVar

import orjson
from pydantic import Field

from finetune_api.base import ApiModel, AttemptRef
from finetune_api.catalogue import Price
from finetune_api.evaluation import EvaluationResult
from finetune_api.job import FineTuneJobSpec
from finetune_api.job_status import Failure, Loss, PartName, Progress, ProviderFile, TrainingResult
from finetune_api.memory import MemoryUse
from finetune_api.names import TERMINATION_MESSAGE_MAX_BYTES
from finetune_api.trackers import TrackerStates
from finetune_api.verdict import SPLITS, DatasetVerdict

_SUSPECT = re.compile(rb"NaN|Infinity|\d[eE]\+?\d{3}|\d{19}")
"""Appears in every text with such a number. Most texts have no match, and need no further check."""

LARGEST_NUMBER = 2**63
"""The API server rejects integers from here on."""

T = TypeVar("T")
RunPhase = Literal["Validating", "Checked", "Running", "Evaluating", "Measured", "Succeeded", "Failed", "Interrupted"]

DONE: frozenset[RunPhase] = frozenset({"Checked", "Measured", "Succeeded"})
"""Phases of a run that has completed its task: its result is kept, and nothing that follows revokes it."""


class ReportTarget(ApiModel):
    """Where a pod sends its reports. The CA is in REPORT_CA_VARIABLE, the token at TOKEN_PATH."""

    url: str = Field(description="https URL of the operator's report endpoint.")


class StoreRef(ApiModel):
    """A folder of an object store. Its keys are in variables that begin with ARTIFACTS_PREFIX."""

    uri: str = Field(description="URI of the folder.")
    endpoint: str | None = Field(None, description="URL of the store, if it is not the scheme's default.")


class ActiveVersionRef(ApiModel):
    """The version of the job's model that is active when the attempt starts."""

    version: Annotated[int, Field(ge=1)] = Field(description="Its number.")
    folder: str | None = Field(
        None, description="Folder of its artifact, mounted read-only; none if it is not on a volume."
    )
    store: StoreRef | None = Field(None, description="Its artifact, if it is in a store.")
    sha256: str | None = Field(None, alias="sha256", description="SHA-256 of its manifest.")


class AttemptJob(AttemptRef):
    """An attempt of a FineTuneJob: what each of its pods needs to know."""

    spec: FineTuneJobSpec = Field(description="The job's spec as it was applied.")
    report: ReportTarget | None = Field(None, description="Where to report to; none without a cluster.")

    def wire(self) -> dict[str, Any]:
        """The job as JSON, without fields at their defaults: an older image rejects fields that it does not know.

        The spec is complete, as its defaults may differ in another release.
        """
        fields = type(self).model_fields.items()
        defaults = {name for name, field in fields if name != "spec" and getattr(self, name) == field.default}
        return self.model_dump(mode="json", by_alias=True, exclude_none=True, exclude=defaults)


class PrepareJob(AttemptJob):
    """An attempt at a provider outside of the cluster: a pod here checks, converts and uploads its data."""

    rules: Annotated[str, Field(max_length=32)] = Field(description="Which provider's rules the data must meet.")
    upload_url: str = Field(description="https URL of the operator's upload endpoint.")
    price: Price | None = Field(None, description="Price of tuning the base model, if known.")


class MeasureJob(AttemptJob):
    """An attempt whose model stays at its provider: a pod here sends it the test set."""

    answers_url: str = Field(description="https base URL of the operator's API for this attempt's models.")
    dataset: DatasetVerdict = Field(description="Result of the data check before the training.")
    active_version: Annotated[int, Field(ge=1)] | None = Field(
        None, description="Number of the version to compare the tuned model with, if it can be called."
    )
    missing: Annotated[str, Field(max_length=300)] | None = Field(
        None, description="Why the active version cannot be called, although the job compares with it."
    )
    progress: Progress | None = Field(None, description="Progress of the training.")
    output: str | None = Field(None, description="Folder for answers and report, if the job names one.")


class TrainerJob(AttemptJob):
    """An attempt that trains here: all that the trainer needs to know."""

    output: str = Field(
        description="Folder for checkpoints/, metrics.jsonl and the finished artifact in model/; survives the pod."
    )
    artifact_uri: str = Field(description="URI of the artifact's folder in status.")
    artifact_folder: str | None = Field(
        None, description="Folder of the artifact, if a platform collects it from there. Default: `output`/model."
    )
    store: StoreRef | None = Field(
        None, description="Store that keeps `output`, if it does not survive the pod and is only scratch space."
    )
    model_cache: str | None = Field(None, description="Folder of the model cache, if the connection has one.")
    air_gapped: bool = Field(False, description="Never contact a hub.")
    trust_remote_code: bool = Field(False, description="Whether models may run code of their own.")
    code: str | None = Field(None, description="File with the code that spec.code names.")
    nodes: Annotated[int, Field(ge=1)] = Field(1, description="Pods of the attempt.")
    ranks_per_node: Annotated[int, Field(ge=1)] = Field(
        1, description="Processes that train in each pod: one per GPU, or one on CPU."
    )
    rendezvous: str | None = Field(None, description="HOST:PORT of the first node's pod, where several nodes meet.")
    active_version: ActiveVersionRef | None = Field(
        None, description="Version to compare the tuned model with, if the job or its model requires it."
    )
    short_of_memory: bool = Field(
        False, description="Whether the kernel may have ended the previous attempt for lack of memory."
    )


class UploadTarget(AttemptRef):
    """The file that a pod uploads, as the query of the URL. The body is the file, with its length in the header."""

    split: PartName = Field(description="Which split it is, or code.")
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] = Field(alias="sha256", description="Of the body.")


class EvaluationSize(ApiModel):
    """The tokens that each evaluated model processes, estimated from the text's length."""

    rows: Annotated[int, Field(ge=0)] = Field(description="Rows of the test set.")
    prompt_tokens: Annotated[int, Field(ge=0)] = Field(description="Tokens of its prompts.")
    completion_tokens: Annotated[int, Field(ge=0)] = Field(description="Tokens of its completions.")


class Checked(ApiModel):
    """Result of a data check for a provider."""

    files: Annotated[list[ProviderFile], Field(min_length=1, max_length=4)] = Field(
        description="The converted files at the provider."
    )
    tokens: Annotated[int, Field(ge=0)] = Field(description="Estimated tokens of one epoch of the training set.")
    evaluation: EvaluationSize | None = Field(None, description="Size of the evaluation, if there is a test set.")


class Report(AttemptRef):
    """The complete state of an attempt in each report, so that lost or repeated reports do no harm."""

    phase: RunPhase = Field(description="What the trainer is doing.")
    progress: Progress | None = Field(None, description="Progress of training and evaluation.")
    loss: Loss | None = Field(None, description="Loss curves so far, thinned.")
    dataset: DatasetVerdict | None = Field(None, description="Result of the data check.")
    memory: MemoryUse | None = Field(None, description="Estimated and measured memory of the training.")
    evaluation: EvaluationResult | None = Field(
        None, description="Scores of the tuned model and its baselines on the test set."
    )
    trackers: TrackerStates | None = Field(None, description="State of each experiment tracker.")
    checked: Checked | None = Field(None, description="What was uploaded to the provider; with phase Checked.")
    result: TrainingResult | None = Field(None, description="Result of the run; with phase Succeeded.")
    failure: Failure | None = Field(None, description="What went wrong; with phase Failed.")


def termination_message(report: Report) -> str:
    """The report in the kubelet's 4096 bytes: curves, rows, log and scores are shortened as needed."""
    body = report.wire()
    for shorten in (_shorten_curves, _shorten_problems, _drop_details, partial(_compact, report), _shorten_failure):
        text = orjson.dumps(body)
        if len(text) <= TERMINATION_MESSAGE_MAX_BYTES:
            return text.decode()
        shorten(body)
    return orjson.dumps(body).decode()


def read_report(text: str | bytes) -> Report:
    """A pod's report, without what no status could hold: figures that are not finite, or too large.

    Raises:
        ValueError: it is not a report; pydantic's ValidationError if a field of it is wrong.
    """
    report = Report.model_validate_json(text)
    if not _SUSPECT.search(text.encode() if isinstance(text, str) else text) or _storable(report.wire()):
        return report
    report = report.model_copy(update={"loss": None, "progress": None, "memory": None})
    if not _storable(report.wire()):
        raise ValueError("a number in it is not finite, or too large")
    return report


def _storable(value: Any) -> bool:
    """Whether the API server accepts all its numbers: one that it rejects would prevent the whole status write."""
    if isinstance(value, dict):
        return all(map(_storable, value.values()))
    if isinstance(value, list):
        return all(map(_storable, value))
    if isinstance(value, float):
        return isfinite(value)
    return not isinstance(value, int) or abs(value) < LARGEST_NUMBER


def read_termination_message(text: str) -> Report | None:
    """The report in a termination message; None if it has none (a log tail, or truncated by the kubelet)."""
    try:
        return read_report(text)
    except ValueError:
        return None


def _shorten_curves(body: dict[str, Any]) -> None:
    loss = body.get("loss") or {}
    for split in ("train", "validation"):
        loss[split] = thin(loss.get(split, []), 10)


def _shorten_problems(body: dict[str, Any]) -> None:
    dataset = body.get("dataset") or {}
    dataset["warnings"] = dataset.get("warnings", [])[:2] if dataset else []
    for split in SPLITS:
        if split in dataset:
            dataset[split]["problems"] = dataset[split].get("problems", [])[:2]
    failure = body.get("failure") or {}
    failure.pop("logTail", None)
    if len(failure.get("message", "")) > 800:
        failure["message"] = failure["message"][:797] + "..."
    if not dataset:
        return
    if len(dataset.get("message", "")) > 800:
        dataset["message"] = dataset["message"][:797] + "..."


def _drop_details(body: dict[str, Any]) -> None:
    body.pop("loss", None)
    body.pop("dataset", None)
    body.pop("memory", None)


def _compact(report: Report, body: dict[str, Any]) -> None:
    if report.evaluation:
        body["evaluation"] = report.evaluation.compact().wire()


def _shorten_failure(body: dict[str, Any]) -> None:
    """The last resort: characters outside ASCII take up to four bytes each, and control characters six in JSON."""
    result = body.get("result") or {}
    if "warnings" in result:
        result["warnings"] = [text if len(text) <= 200 else text[:197] + "..." for text in result["warnings"][:1]]
    for failure in (body.get("failure") or {}, result.get("evaluationFailure") or {}):
        failure.pop("nextStep", None)
        if len(failure.get("message", "")) > 200:
            failure["message"] = failure["message"][:197] + "..."


def thin(points: list[T], limit: int) -> list[T]:
    """At most `limit` of the points, evenly spaced, including the first and the last."""
    if len(points) <= limit:
        return points
    last = len(points) - 1
    return [points[round(i * last / (limit - 1))] for i in range(limit)]
