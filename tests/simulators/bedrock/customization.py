"""Customization jobs: validated, processed and trained as time passes, their metrics written to S3."""

import csv
import io
import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from tests.simulators.aws.s3 import S3, MissingError
from tests.simulators.bedrock import data
from tests.simulators.bedrock.account import Account, CustomModel, Job, conflict, invalid, over_quota
from tests.simulators.bedrock.settings import MODELS
from tests.simulators.openai import training
from tests.simulators.openai.training import Course, Data

ACTIVE = ("InProgress", "Stopping")
STORAGE_PER_MONTH = Decimal("1.95")
MONTH_HOURS = 730


class Customization:
    """Creates jobs and advances their states."""

    def __init__(self, account: Account) -> None:
        self._account, self._clock, self._settings = account, account.clock, account.settings
        self._s3 = S3(account.settings)

    def create(self, request: dict[str, Any]) -> str:
        """Make a job; returns its name.

        Raises:
            ApiError: with the reason why not.
        """
        account = self._account
        account.assume(request["roleArn"])
        base, model = account.base_of(request["baseModelIdentifier"])
        _check(request.get("hyperParameters", {}), model.hyperparameters)
        if any(job.request["jobName"] == request["jobName"] for job in account.jobs.values()):
            raise conflict("The provided job name is currently in use by another job. Enter a different job name.")
        names = {job.request["customModelName"] for job in account.jobs.values() if job.status in ACTIVE}
        if request["customModelName"] in names | {made.name for made in account.models.values()}:
            raise conflict("The provided model name is currently in use. Enter a different model name.")
        if sum(job.status in ACTIVE for job in account.jobs.values()) >= self._settings.job_limit:
            raise over_quota("The number of active customization jobs exceeds the service quota.")
        return self._begin(account.arn("model-customization-job", base), request, base)

    def _begin(self, arn: str, request: dict[str, Any], base: str) -> str:
        job = Job(arn, request, base, self._clock.now, self._clock.now)
        self._account.jobs[arn] = job
        self._account.tags[arn] = request.get("jobTags", [])
        self._enter(job, "validationDetails")
        self._clock.later(job, self._settings.validation_seconds, self._validate)
        return arn

    def stop(self, job: Job) -> None:
        """Let a job stop after a while.

        Raises:
            ApiError: it has ended.
        """
        if job.status not in ACTIVE:
            raise conflict("The job cannot be stopped: it has ended.")
        self._turn(job, "Stopping")
        self._clock.later(job, self._settings.stop_seconds, lambda job: self._end(job, "Stopped"))

    def _turn(self, job: Job, status: str) -> None:
        job.turn += 1
        job.status, job.changed_at = status, self._clock.now
        for phase, state in job.phases.items():
            if state in ACTIVE:
                job.phases[phase] = status

    def _enter(self, job: Job, phase: str) -> None:
        for earlier, state in job.phases.items():
            if state == "InProgress":
                job.phases[earlier] = "Completed"
        job.phases[phase] = "InProgress"
        job.changed_at = self._clock.now

    def _validate(self, job: Job) -> None:
        try:
            job.data = self._read(job, job.request["trainingDataConfig"]["s3Uri"])
            for validator in job.request.get("validationDataConfig", {}).get("validators", []):
                job.validation = self._read(job, validator["s3Uri"])
            self._s3.look(job.request["outputDataConfig"]["s3Uri"])
        except (MissingError, ValueError) as error:
            self._fail(job, str(error))
            return
        self._enter(job, "dataProcessingDetails")
        self._clock.later(job, self._settings.processing_seconds, self._train)

    def _read(self, job: Job, uri: str) -> Data:
        found = data.read(self._s3.read(uri), conversations=MODELS[job.base].conversations)
        if found.fault:
            raise ValueError(f"Encountered an unexpected error when processing the request: {uri}: {found.fault}.")
        return found

    def _train(self, job: Job) -> None:
        asked = job.request.get("hyperParameters", {})
        job.course = Course(int(asked.get("epochCount", 2)), int(asked.get("batchSize", 1)), 1.0, job.data.rows)
        self._enter(job, "trainingDetails")
        failure, self._settings.fail_next_job = self._settings.fail_next_job, None
        if failure:
            self._fail(job, failure)
            return
        self._clock.later(job, self._settings.step_seconds, self._step)

    def _step(self, job: Job) -> None:
        assert job.course is not None
        step = len(job.losses) + 1
        job.losses.append(training.metrics(step, job.course, seed=1, validated=job.validation is not None))
        if step < job.course.steps:
            self._clock.later(job, self._settings.step_seconds, self._step)
        else:
            self._complete(job)

    def _complete(self, job: Job) -> None:
        try:
            self._s3.write(self._output(job, "training_artifacts/step_wise_training_metrics.csv"), _table(job, "train"))
            if job.validation:
                path = "validation_artifacts/post_fine_tuning_validation/validation_metrics.csv"
                self._s3.write(self._output(job, path), _table(job, "valid"))
        except MissingError as error:
            self._fail(job, str(error))
            return
        model = CustomModel(self._account.arn("custom-model", job.base), job, self._clock.now)
        self._account.models[model.arn] = model
        self._account.tags[model.arn] = job.request.get("customModelTags", [])
        self._account.ledger.start(model.arn, "storage", STORAGE_PER_MONTH / MONTH_HOURS)
        job.model_arn = model.arn
        self._end(job, "Completed")

    def _output(self, job: Job, path: str) -> str:
        folder = job.request["outputDataConfig"]["s3Uri"].rstrip("/")
        return f"{folder}/model-customization-job-{job.arn.rpartition('/')[2]}/{path}"

    def _fail(self, job: Job, message: str) -> None:
        job.failure = message
        self._end(job, "Failed")

    def _end(self, job: Job, status: str) -> None:
        if job.course and status != "Failed":
            tokens = job.data.tokens * job.course.epochs * len(job.losses) // job.course.steps
            self._account.ledger.charge(job.arn, "training", MODELS[job.base].training * tokens / 1_000_000)
        self._turn(job, status)
        job.ended_at = self._clock.now


def _check(given: dict[str, str], limits: Mapping[str, tuple[float, float]]) -> None:
    for name, value in given.items():
        if name not in limits:
            raise invalid(f"The hyperparameter {name} is not supported by the base model.")
        low, high = limits[name]
        try:
            within = low <= float(value) <= high
        except ValueError:
            within = False
        if not within:
            raise invalid(f"The value of hyperparameter {name} must be between {low:g} and {high:g}.")


def _table(job: Job, kind: str) -> bytes:
    assert job.course is not None
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(
        ["step_number", "epoch_number", "training_loss" if kind == "train" else "validation_loss", "perplexity"]
    )
    for step, found in enumerate(job.losses):
        loss = found[f"{kind}_loss"]
        table.writerow([step, step // job.course.steps_per_epoch, loss, round(math.exp(loss), 5)])
    return text.getvalue().encode()
