"""Builders of specs, views, runs, pods and reports for the tests of decisions; arguments override fields."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from finetune_api.connection import LLMConnectionSpec
from finetune_api.job import FineTuneJobSpec
from finetune_api.job_status import Failure, FineTuneJobStatus, ProviderStatus
from finetune_api.reasons import Reason
from finetune_api.trainer import Report
from finetune_operator.decide.job.run import Run
from finetune_operator.decide.job.steps import decide
from finetune_operator.decide.job.view import JobView

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
UID = "11111111-2222-3333-4444-555555555555"


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def stamp(seconds: float = 0) -> str:
    return at(seconds).strftime("%Y-%m-%dT%H:%M:%SZ")


def connection(hugging_face: dict[str, Any] | None = None, **fields: Any) -> LLMConnectionSpec:
    local = {"trainerImage": "trainer:1", "artifacts": {"uri": "pvc://models"}} | (hugging_face or {})
    return LLMConnectionSpec.model_validate({"namespaceSelector": {}, "huggingFace": local} | fields)


def openai_connection() -> LLMConnectionSpec:
    key = {"name": "openai", "key": "api-key"}
    return LLMConnectionSpec.model_validate({"namespaceSelector": {}, "openAI": {"apiKeySecretRef": key}})


SUBSCRIPTION = "11111111-2222-3333-4444-555555555555"


def azure_connection() -> LLMConnectionSpec:
    block = {
        "endpoint": "https://res.openai.azure.com",
        "subscriptionID": SUBSCRIPTION,
        "resourceGroup": "group",
        "account": "res",
        "credentials": {"workloadIdentity": True},
    }
    return LLMConnectionSpec.model_validate({"namespaceSelector": {}, "azureOpenAI": block})


def bedrock_connection() -> LLMConnectionSpec:
    block = {
        "region": "us-east-1",
        "roleARN": "arn:aws:iam::123456789012:role/a",
        "s3": {"bucket": "bucket"},
        "credentials": {"podIdentity": True},
    }
    return LLMConnectionSpec.model_validate({"namespaceSelector": {}, "bedrock": block})


def sagemaker_connection(**tuning: Any) -> LLMConnectionSpec:
    """`tuning`: fields of its block fineTuning."""
    block = {
        "region": "us-east-1",
        "roleARN": "arn:aws:iam::123456789012:role/tuning",
        "trainerImage": "trainer:1",
        "s3": {"bucket": "tuning"},
        "instanceTypes": ["ml.g5.xlarge", "ml.g5.2xlarge"],
        "credentials": {"podIdentity": True},
    }
    return LLMConnectionSpec.model_validate({"namespaceSelector": {}, "sageMaker": block, "fineTuning": tuning})


def job_spec(**fields: Any) -> FineTuneJobSpec:
    manifest = {
        "connectionRef": {"name": "local"},
        "baseModel": "tiny/llama",
        "modelRef": {"name": "sentiment"},
        "dataset": {"train": {"uri": "pvc://data/train.jsonl"}},
    }
    return FineTuneJobSpec.model_validate(manifest | fields)


def view(run: Run | None = None, status: FineTuneJobStatus | None = None, **fields: Any) -> JobView:
    """A job that was just applied, with a usable connection."""
    base = JobView(
        name="sentiment-1",
        namespace="team-a",
        uid=UID,
        generation=1,
        created=NOW,
        deleting=False,
        spec=job_spec(),
        spec_error="",
        status=status or FineTuneJobStatus(),
        connection=connection(),
        namespace_labels={"team": "a"},
        run=run or Run("Absent"),
        live_pods=False,
        version=None,
        artifact_uri="pvc://models/team-a/sentiment/sentiment-1-11111111",
        now=NOW,
    )
    return replace(base, **fields)


def provider(attempt: int = 1, **fields: Any) -> ProviderStatus:
    """Provider status of a started attempt."""
    return ProviderStatus(name="huggingFace", attempt=attempt, **({"job_id": f"sentiment-1-{attempt}"} | fields))


def running(attempt: int = 1, **fields: Any) -> FineTuneJobStatus:
    """Status of a job whose attempt has been started."""
    return FineTuneJobStatus(phase="Running", observed_generation=1, provider=provider(attempt)).model_copy(
        update=fields
    )


def run(state: Any, attempt: int = 1, **fields: Any) -> Run:
    return Run(state, **({"job_id": f"sentiment-1-{attempt}"} | fields))


def failed(reason: Reason, message: str = "", **fields: Any) -> Run:
    return run("Failed", failure=Failure.because(reason, message or f"because of {reason.value}"), **fields)


def report(phase: Any = "Running", attempt: int = 1, **fields: Any) -> Report:
    body = {"namespace": "team-a", "name": "sentiment-1", "uid": UID, "attempt": attempt, "phase": phase}
    return Report.model_validate(body | fields)


def progress(step: int = 10, seconds: float = 0) -> dict[str, Any]:
    return {"step": step, "totalSteps": 100, "percent": step, "updatedAt": stamp(seconds)}


def succeeded(attempt: int = 1, **fields: Any) -> Report:
    uri = "pvc://models/team-a/sentiment/sentiment-1-11111111/model"
    result = {"artifact": {"uri": uri, "kind": "Adapter"}, "steps": 100, "trainLoss": 0.4, "evalLoss": 0.5}
    return report("Succeeded", attempt, result=result, **fields)


def verdict(valid: bool = True, **fields: Any) -> dict[str, Any]:
    reason = "Valid" if valid else "DatasetInvalid"
    return {"valid": valid, "reason": reason, "message": "1 of 2 rows cannot be used"} | fields


def batch_job(*conditions: tuple[str, str], **fields: Any) -> dict[str, Any]:
    """A batch Job with conditions as (type, reason)."""
    found = [{"type": kind, "status": "True", "reason": reason} for kind, reason in conditions]
    metadata = {"name": "sentiment-1-1", "namespace": "team-a", "uid": "job-uid", "creationTimestamp": stamp()}
    return {"metadata": metadata, "spec": {}, "status": {"conditions": found}} | fields


def pod(phase: str = "Running", deleted: float | None = None, **status: Any) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": "pod-1", "namespace": "team-a", "uid": "pod-uid", "creationTimestamp": stamp()}
    if deleted is not None:
        metadata["deletionTimestamp"] = stamp(deleted)
    return {"metadata": metadata, "status": {"phase": phase, **status}}


def ended(exit_code: int | None = None, reason: str = "Error", message: str = "") -> dict[str, Any]:
    """Status fields of a pod whose container has ended."""
    state = {"reason": reason, "message": message} | ({} if exit_code is None else {"exitCode": exit_code})
    return {"containerStatuses": [{"name": "trainer", "state": {"terminated": state}}]}


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    """Status fields of a pod whose container does not start."""
    return {"containerStatuses": [{"name": "trainer", "state": {"waiting": {"reason": reason, "message": message}}}]}


def kstatus(status: Any, generation: int = 1) -> str:
    """A status as computed by kstatus, which Flux, Argo CD's default and `kubectl wait` follow."""
    if status.observed_generation != generation:
        return "InProgress"
    conditions = {c.type: c.status for c in status.conditions or ()}
    if conditions.get("Reconciling") == "True":
        return "InProgress"
    if conditions.get("Stalled") == "True":
        return "Failed"
    return "Current" if conditions.get("Ready") == "True" else "InProgress"


def condition(status: Any, kind: str) -> Any:
    return next((c for c in status.conditions or () if c.type == kind), None)


def ended_as(kind: str, **fields: Any) -> FineTuneJobStatus:
    """Status of a job that has ended."""
    its_run = run("Succeeded", report=succeeded()) if kind == "Complete" else failed(Reason.DATASET_INVALID)
    return decide(view(its_run, running(), version=1, **fields)).status
