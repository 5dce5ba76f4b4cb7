"""Builders of jobs at a provider for the tests of decisions."""

from typing import Any

from finetune_api.catalogue import ProviderFacts
from finetune_api.job import FineTuneJobSpec
from finetune_api.job_status import FineTuneJobStatus, ProviderFile, ProviderStatus
from finetune_operator.decide.job.remote import JobKey, Metrics, RemoteJob, run_of
from finetune_operator.decide.job.run import Run
from finetune_operator.decide.job.view import JobView
from tests.unit.finetune_operator.decide.given import (
    NOW,
    UID,
    job_spec,
    openai_connection,
    report,
    stamp,
    verdict,
    view,
)

KEY = JobKey("team-a", "sentiment-1", UID, 1, NOW)
FILE = ProviderFile(split="train", id="file-1", bytes=10, sha256="a" * 64)
FACTS = ProviderFacts.model_validate(
    {"models": {"gpt-*": {"training": {"perMillionTokens": "3.00", "asOf": "2026-11-01"}}}}
)


def spec(**fields: Any) -> FineTuneJobSpec:
    return job_spec(**({"baseModel": "gpt-4o-mini"} | fields))


def given(run: Run | None = None, status: FineTuneJobStatus | None = None, **fields: Any) -> JobView:
    base: dict[str, Any] = {
        "spec": spec(),
        "connection": openai_connection(),
        "remote": True,
        "has_finalizer": True,
        "facts": FACTS,
        "artifact_uri": "",
    }
    return view(run, status, **(base | fields))


def status(**fields: Any) -> FineTuneJobStatus:
    """Status of a job that was created at its provider."""
    provider = {"name": "openAI", "attempt": 1, "job_id": "ftjob-1", "asked_at": stamp(), "files": [FILE]}
    return FineTuneJobStatus(phase="Running", observed_generation=1, provider=ProviderStatus(**(provider | fields)))


def checked(tokens: int = 1000) -> Run:
    found = {"files": [FILE.wire()], "tokens": tokens}
    return Run("Checked", report=report("Checked", dataset=verdict(), checked=found), job_id="sentiment-1-1")


def checking(**fields: Any) -> FineTuneJobStatus:
    return status(**({"job_id": "sentiment-1-1", "asked_at": None} | fields))


def facts(**fields: Any) -> ProviderFacts:
    return ProviderFacts.model_validate(FACTS.wire() | fields)


def remote(state: Any, **fields: Any) -> RemoteJob:
    return RemoteJob(id="ftjob-1", state=state, created=NOW, **fields)


def at_provider(state: Any, metrics: Metrics | None = None, **fields: Any) -> Run:
    return run_of(remote(state, **fields), metrics or Metrics(), KEY, status(), NOW)
