"""Differences of Azure's data plane from OpenAI: identifiers, files, jobs, models."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

from openai.types import FileObject
from openai.types.fine_tuning import FineTuningJob

from tests.simulators.azure.settings import STANDARD, TRAINING_FACTOR, AzureSettings
from tests.simulators.http import ApiError, Call, Reply
from tests.simulators.ids import Ids
from tests.simulators.openai.files import Files, StoredFile
from tests.simulators.openai.job_calls import NO_ERROR, JobCalls
from tests.simulators.openai.jobs import Job, Training
from tests.simulators.openai.models import Models
from tests.simulators.openai.naming import Naming
from tests.simulators.shapes import conform

HEX = "0123456789abcdef"
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
LONGEST_SUFFIX = 18


class AzureNaming(Naming):
    """32 hexadecimal digits; a tuned model is its base, the job and the suffix."""

    def __init__(self, ids: Ids) -> None:
        super().__init__(ids, "")

    def _new(self, prefix: str) -> str:
        return self._ids.new(prefix, 32, HEX)

    def file(self) -> str:
        return self._new("file-")

    def job(self) -> str:
        return self._new("ftjob-")

    def event(self) -> str:
        return self._new("ftevent-")

    def checkpoint(self) -> str:
        return self._new("ftchkpt-")

    def tuned(self, base: str, suffix: str, job_id: str) -> str:
        name = f"{base}.ft-{job_id.removeprefix('ftjob-')}"
        return f"{name}-{suffix}" if suffix else name

    def at_step(self, tuned: str, step: int, *, last: bool) -> str:
        return tuned if last else super().at_step(tuned, step, last=last)


class AzureFiles(Files):
    """A file is imported after its upload; without a byte order mark the import fails."""

    _settings: AzureSettings

    def state(self, stored: StoredFile) -> str:
        if self._clock.now < stored.ready_at:
            return "pending"
        return "processed" if self._importable(stored) else "error"

    def _importable(self, stored: StoredFile) -> bool:
        if stored.purpose != "fine-tune" or not self._settings.need_byte_order_mark:
            return True
        with stored.path.open("rb") as content:
            return content.read(3) == BYTE_ORDER_MARK

    def conform(self, body: dict[str, Any]) -> dict[str, Any]:
        known = body | {"status": "uploaded"} if body["status"] == "pending" else body
        conform(FileObject, known)
        return body


class AzureTraining(Training):
    """The results file has Azure's columns; the price depends on the training type."""

    columns = (
        "step", "train_loss", "train_mean_token_accuracy", "valid_loss", "validation_mean_token_accuracy",
        "full_valid_loss", "full_valid_mean_token_accuracy",
    )  # fmt: skip
    sources = {"validation_mean_token_accuracy": "valid_mean_token_accuracy"}  # noqa: RUF012 - a table, as in the base

    def price_per_million(self, job: Job) -> Decimal:
        return super().price_per_million(job) * TRAINING_FACTOR[job.request.get("trainingType", STANDARD)]


class AzureJobCalls(JobCalls):
    """A training type beside the SDK's fields, `pending` until it runs, and nulls where OpenAI has values."""

    beside_the_sdk = frozenset({"trainingType"})
    _settings: AzureSettings

    def check(self, request: dict[str, Any]) -> None:
        suffix = request.get("suffix") or ""
        if len(suffix) > LONGEST_SUFFIX or "." in suffix:
            message = f"The suffix must have at most {LONGEST_SUFFIX} characters and no dots."
            raise ApiError(400, "invalidPayload", message)
        super().check(request)

    def admitted(self, request: dict[str, Any]) -> str:
        base = self._models.tunable(request["model"])
        if request.get("trainingType", STANDARD) not in self._settings.training_types.get(str(base), []):
            raise ApiError(400, "invalidPayload", "The specified base model does not support fine-tuning.")
        return super().admitted(request)

    def usable(self, param: str, file_id: str) -> None:
        super().usable(param, file_id)
        stored = self._files.find(file_id)
        if stored and self._files.state(stored) == "error":
            raise ApiError(400, "fileImportFailed", f"The file {file_id} could not be imported: it must be encoded in "
                                                    "UTF-8 with a byte order mark (BOM).")  # fmt: skip

    def state(self, job: Job) -> str:
        state = super().state(job)
        return "pending" if state in {"validating_files", "queued"} else state

    def hyperparameters(self, job: Job) -> dict[str, Any]:
        if job.course is None:
            asked = {"n_epochs": -1, "batch_size": -1, "learning_rate_multiplier": 1.0}
            chosen = {name: value for name, value in job.hyperparameters.items() if value != "auto"}
            return asked | {name: chosen[name] for name in asked.keys() & chosen.keys()}
        return super().hyperparameters(job)

    def conform(self, body: dict[str, Any]) -> dict[str, Any]:
        shown = {key: value for key, value in body.items() if key not in {"user_provided_suffix", "integrations"}}
        if not self._settings.keep_metadata:
            shown["metadata"] = None
        shown["error"] = None if body["error"] == NO_ERROR else body["error"]
        ended = body["status"] == "succeeded"
        listed = body["status"] if body["status"] in {"running", "succeeded", "failed", "cancelled"} else "running"
        conform(FineTuningJob, shown | {"status": listed})
        return shown | {"organization_id": None, "result_files": body["result_files"] if ended else None}


class AzureModels(Models):
    """A model that is deployed cannot be deleted."""

    def __init__(self, *given: Any, is_deployed: Callable[[str], bool]) -> None:
        super().__init__(*given)
        self._is_deployed = is_deployed

    def delete(self, call: Call) -> Reply:
        if self._is_deployed(call.path["model"]):
            raise ApiError(409, "conflict", "The model is deployed. Delete its deployments first.")
        return super().delete(call)
