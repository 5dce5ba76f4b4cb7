"""What passes between operator and trainer: the job that a pod gets, and what it reports."""

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
from finetune_api.trackers import Followers
from finetune_api.verdict import SPLITS, DatasetVerdict

_SUSPECT = re.compile(rb"NaN|Infinity|\d[eE]\+?\d{3}|\d{19}")
"""What a text has that holds such a number: most have nothing of it, and need no second look."""

LARGEST_NUMBER = 2**63
"""Whole numbers from here on are none to the API server."""

T = TypeVar("T")
RunPhase = Literal["Validating", "Checked", "Running", "Evaluating", "Measured", "Succeeded", "Failed", "Interrupted"]

DONE: frozenset[RunPhase] = frozenset({"Checked", "Measured", "Succeeded"})
"""Phases of a run that has done what it was for: what comes of it is kept, and nothing that follows takes it back."""


class ReportTarget(ApiModel):
    """Where a pod reports to. The CA comes by REPORT_CA_VARIABLE, the token from TOKEN_PATH."""

    url: str = Field(description="https URL of the operator's report endpoint.")


class StoreRef(ApiModel):
    """A folder of an object store. Its keys come by variables that begin with ARTIFACTS_PREFIX."""

    uri: str = Field(description="URI of the folder.")
    endpoint: str | None = Field(None, description="URL of a store that is not the scheme's own.")


class ActiveVersionRef(ApiModel):
    """The version of the job's model that is active when the attempt starts."""

    version: Annotated[int, Field(ge=1)] = Field(description="Its number.")
    folder: str | None = Field(
        None, description="Folder of its artifact, mounted read-only; none where it is kept elsewhere."
    )
    store: StoreRef | None = Field(None, description="Its artifact, where it is kept in a store.")
    sha256: str | None = Field(None, alias="sha256", description="SHA-256 of its manifest.")


class AttemptJob(AttemptRef):
    """One attempt of a FineTuneJob: what every pod of one needs to know."""

    spec: FineTuneJobSpec = Field(description="The job's spec as it was applied.")
    report: ReportTarget | None = Field(None, description="Where to report to; without a cluster nowhere.")

    def wire(self) -> dict[str, Any]:
        """The job as JSON, without what is as if nobody had said it: an older image refuses fields that it lacks.

        The spec is whole: its defaults may be others in another release.
        """
        fields = type(self).model_fields.items()
        unsaid = {name for name, field in fields if name != "spec" and getattr(self, name) == field.default}
        return self.model_dump(mode="json", by_alias=True, exclude_none=True, exclude=unsaid)


class PrepareJob(AttemptJob):
    """An attempt that a provider outside of the cluster runs: its data are checked, converted and passed on here."""

    rules: Annotated[str, Field(max_length=32)] = Field(description="Which provider's rules the data must meet.")
    upload_url: str = Field(description="https URL of the operator's upload endpoint.")
    price: Price | None = Field(None, description="Price of tuning the base model, where it is known.")


class MeasureJob(AttemptJob):
    """An attempt whose model stays at its provider: it is asked the test set from here."""

    answers_url: str = Field(description="https root of the operator's API for this attempt's models.")
    dataset: DatasetVerdict = Field(description="What was found in the data before the training.")
    active_version: Annotated[int, Field(ge=1)] | None = Field(
        None, description="Number of the version that the tuned model is compared with, where there is one to ask."
    )
    missing: Annotated[str, Field(max_length=300)] | None = Field(
        None, description="Why the active version cannot be asked, where it is to be compared with."
    )
    progress: Progress | None = Field(None, description="How far the training came.")
    output: str | None = Field(None, description="Folder for answers and report, where the job names one.")


class TrainerJob(AttemptJob):
    """An attempt that trains here: all that the trainer needs to know."""

    output: str = Field(
        description="Folder for checkpoints/, metrics.jsonl and the finished artifact in model/; survives the pod."
    )
    artifact_uri: str = Field(description="What status calls the artifact's folder.")
    artifact_folder: str | None = Field(
        None, description="Folder of the artifact where a platform takes it from there. Default: `output`/model."
    )
    store: StoreRef | None = Field(
        None, description="Where `output` outlives the pod, if it does not by itself: it is the pod's scratch then."
    )
    model_cache: str | None = Field(None, description="Folder of the model cache, where the connection has one.")
    air_gapped: bool = Field(False, description="Never reach a hub.")
    trust_remote_code: bool = Field(False, description="Let models bring code of their own.")
    code: str | None = Field(None, description="File with the code that spec.code names.")
    nodes: Annotated[int, Field(ge=1)] = Field(1, description="Pods of the attempt.")
    ranks_per_node: Annotated[int, Field(ge=1)] = Field(
        1, description="Processes that train in each pod: one for each GPU, on CPU one."
    )
    rendezvous: str | None = Field(None, description="HOST:PORT at which the pods of several nodes meet: the first's.")
    active_version: ActiveVersionRef | None = Field(
        None, description="What the tuned model is compared with, where the job or its model asks for it."
    )
    short_of_memory: bool = Field(
        False, description="Whether the attempt before was ended for want of memory: by the kernel, if it said nothing."
    )


class UploadTarget(AttemptRef):
    """Which file a pod sends: the query of an upload's URL. The body is the file, its length stands in the head."""

    split: PartName = Field(description="Which split it is, or code.")
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] = Field(alias="sha256", description="Of the body.")


class EvaluationSize(ApiModel):
    """How much is asked of each model that is measured, estimated from the text's length."""

    rows: Annotated[int, Field(ge=0)] = Field(description="Rows of the test set.")
    prompt_tokens: Annotated[int, Field(ge=0)] = Field(description="Tokens of its questions.")
    completion_tokens: Annotated[int, Field(ge=0)] = Field(description="Tokens of its answers.")


class Checked(ApiModel):
    """What a check for a provider has come to."""

    files: Annotated[list[ProviderFile], Field(min_length=1, max_length=4)] = Field(
        description="The converted files at the provider."
    )
    tokens: Annotated[int, Field(ge=0)] = Field(description="Tokens of one pass over the training set, estimated.")
    evaluation: EvaluationSize | None = Field(None, description="What the test set comes to, where there is one.")


class Report(AttemptRef):
    """The whole state of one attempt, each time anew: a lost or doubled report changes nothing."""

    phase: RunPhase = Field(description="What the trainer is doing.")
    progress: Progress | None = Field(None, description="Progress of training and evaluation.")
    loss: Loss | None = Field(None, description="Loss curves so far, thinned.")
    dataset: DatasetVerdict | None = Field(None, description="Result of the data check.")
    memory: MemoryUse | None = Field(None, description="What training takes of memory.")
    evaluation: EvaluationResult | None = Field(
        None, description="Scores of the tuned model and its baselines on the test set."
    )
    trackers: Followers | None = Field(None, description="How experiment trackers are doing.")
    checked: Checked | None = Field(None, description="What a provider has been given; with phase Checked.")
    result: TrainingResult | None = Field(None, description="What the run made; with phase Succeeded.")
    failure: Failure | None = Field(None, description="What went wrong; with phase Failed.")


def termination_message(report: Report) -> str:
    """The report in the kubelet's 4096 bytes: curves thinned, rows, log and measures shortened as needed."""
    body = report.wire()
    for shorten in (_shorten_curves, _shorten_problems, _drop_details, partial(_compact, report), _shorten_failure):
        text = orjson.dumps(body)
        if len(text) <= TERMINATION_MESSAGE_MAX_BYTES:
            return text.decode()
        shorten(body)
    return orjson.dumps(body).decode()


def read_report(text: str | bytes) -> Report:
    """The report in what a pod has sent, without what no status could hold: figures that are not finite, or too large.

    Raises:
        ValueError: it is no report; pydantic's ValidationError, where that says which field is wrong.
    """
    report = Report.model_validate_json(text)
    if not _SUSPECT.search(text.encode() if isinstance(text, str) else text) or _storable(report.wire()):
        return report
    report = report.model_copy(update={"loss": None, "progress": None, "memory": None})
    if not _storable(report.wire()):
        raise ValueError("a number in it is not finite, or too large")
    return report


def _storable(value: Any) -> bool:
    """Whether the API server takes all numbers of it: one that it refuses would keep the whole status unwritten."""
    if isinstance(value, dict):
        return all(map(_storable, value.values()))
    if isinstance(value, list):
        return all(map(_storable, value))
    if isinstance(value, float):
        return isfinite(value)
    return not isinstance(value, int) or abs(value) < LARGEST_NUMBER


def read_termination_message(text: str) -> Report | None:
    """The report in a termination message, or None where it is none (a log tail, or cut off by the kubelet)."""
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
    """Last of all: letters outside ASCII take up to four bytes each, and control characters six in JSON."""
    result = body.get("result") or {}
    if "warnings" in result:
        result["warnings"] = [text if len(text) <= 200 else text[:197] + "..." for text in result["warnings"][:1]]
    for failure in (body.get("failure") or {}, result.get("evaluationFailure") or {}):
        failure.pop("nextStep", None)
        if len(failure.get("message", "")) > 200:
            failure["message"] = failure["message"][:197] + "..."


def thin(points: list[T], limit: int) -> list[T]:
    """At most `limit` of the points, evenly spread, the first and the last always among them."""
    if len(points) <= limit:
        return points
    last = len(points) - 1
    return [points[round(i * last / (limit - 1))] for i in range(limit)]
