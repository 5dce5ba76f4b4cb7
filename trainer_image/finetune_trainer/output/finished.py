"""Whether an earlier attempt finished the same job on the same data: then nothing is trained again.

The fingerprint also tells which checkpoints and answers of earlier attempts a run may resume from. Trains nothing.
"""

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

from finetune_api.job_status import TrainingResult
from finetune_api.reasons import Reason
from finetune_api.trainer import TrainerJob
from finetune_api.uris import LOCAL_SCHEME
from finetune_api.verdict import SPLITS, DatasetVerdict
from finetune_trainer.attempt.report import Reporter
from finetune_trainer.data.read import dataset_uri
from finetune_trainer.errors import ANOTHER_OUTPUT, TrainerError
from finetune_trainer.output import artifact
from finetune_trainer.output.pushes import push_all
from finetune_trainer.storage.durable import sha256_of

logger = logging.getLogger(__name__)

# Fields that may differ between attempts of a job without affecting the model.
_NOT_LEARNT_FROM: dict[str, Any] = {
    "suspend": True,
    "ttl_seconds_after_finished": True,
    "retry_nonce": True,
    "resources": True,
    "active_deadline_seconds": True,
    "trackers": True,
    "artifact": {"push"},
}


def fingerprint(job: TrainerJob, *data: str | None) -> str:
    """SHA-256 of what determines the model: the spec without fields about how it is run, and hashes of the data.

    Fields with their default values are left out, so that a release with a new field recognises older checkpoints.
    """
    spec = job.spec.model_dump(mode="json", exclude=_NOT_LEARNT_FROM, exclude_defaults=True)
    return hashlib.sha256(json.dumps([spec, data], sort_keys=True).encode()).hexdigest()


def data_hashes(verdict: DatasetVerdict) -> list[str | None]:
    """Hashes of the training and validation data."""
    return [split.sha256 for split in (verdict.train, verdict.validation) if split]


def was_finished(job: TrainerJob, reporter: Reporter, *, allow_local: bool) -> bool:
    """Whether an earlier attempt wrote the artifact; if so, reports its result.

    Raises:
        TrainerError: SpecInvalid, the artifact is from another spec or other data.
    """
    done = artifact.finished(job)
    if done is None:
        return False
    if done.fingerprint != fingerprint(job):
        raise TrainerError(
            Reason.SPEC_INVALID,
            f"{artifact.folder_of(job)} holds the result of another spec",
            ANOTHER_OUTPUT,
        )
    if allow_local:  # outside of a cluster rows may be edited between runs
        _require_same_files(job, done.dataset)
    reporter.update(dataset=done.dataset, evaluation=done.evaluation, loss=done.curves)
    reporter.update(phase="Succeeded", result=with_pushes(job, done.result))
    return True


def with_pushes(job: TrainerJob, result: TrainingResult) -> TrainingResult:
    """The result with the outcome of the job's pushes, which are made here, after the artifact is complete."""
    pushes = push_all(job.spec.artifact.push, artifact.folder_of(job))
    for failed in (one for one in pushes if one.message):
        logger.warning("%s: %s. The artifact itself is whole.", failed.target, failed.message)
    return result.model_copy(update={"pushes": pushes or None})


def _require_same_files(job: TrainerJob, learnt_from: DatasetVerdict) -> None:
    for split in SPLITS:
        data, known = getattr(job.spec.dataset, split), getattr(learnt_from, split)
        uri = dataset_uri(data, split, allow_local=True) if data else None
        path = Path(uri.mounted_path() or "") if uri and uri.scheme == LOCAL_SCHEME else None
        if known and path and path.is_file() and sha256_of(path) != known.sha256:
            raise TrainerError(
                Reason.SPEC_INVALID,
                f"{artifact.folder_of(job)} holds the result of other data: {path.name} has changed since",
                ANOTHER_OUTPUT,
            )
