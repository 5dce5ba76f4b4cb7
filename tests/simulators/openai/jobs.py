"""Fine-tuning jobs and their state transitions."""

import base64
import csv
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from types import MappingProxyType
from typing import Any

from openai.types.fine_tuning.jobs.fine_tuning_job_checkpoint import Metrics

from tests.simulators.clock import Clock
from tests.simulators.ledger import Ledger
from tests.simulators.openai import training
from tests.simulators.openai.files import Files, StoredFile
from tests.simulators.openai.models import Models
from tests.simulators.openai.naming import Naming
from tests.simulators.openai.settings import Failure, OpenAISettings

ENDED = {"succeeded", "failed", "cancelled"}
KEPT_CHECKPOINTS = 3
REWARDS = ("train_reward_accuracy", "train_reward_margin", "valid_reward_accuracy", "valid_reward_margin")
TOO_DEAR = "Creating this fine-tuning job would exceed your hard limit, please check your plan and billing details."


@dataclass
class Job:
    """A job as requested, and its state."""

    id: str
    request: dict[str, Any]
    model: str
    created_at: float
    seed: int
    status: str = "validating_files"
    error: dict[str, Any] | None = None
    failure: Failure | None = None
    course: training.Course | None = None
    data: training.Data = field(default_factory=training.Data)
    validation: training.Data | None = None
    step: int = 0
    finished_at: float | None = None
    fine_tuned_model: str | None = None
    result_files: list[str] = field(default_factory=list)
    trained_tokens: int | None = None
    events: list[dict[str, Any]] = field(default_factory=list)
    checkpoints: list[dict[str, Any]] = field(default_factory=list)
    reported: list[dict[str, float]] = field(default_factory=list)
    turn: int = 0

    @property
    def learns_pairs(self) -> bool:
        return (self.request.get("method") or {}).get("type") == "dpo"

    @property
    def hyperparameters(self) -> dict[str, Any]:
        method = self.request.get("method") or {}
        chosen = method.get(method.get("type", "supervised"), {}).get("hyperparameters")
        return chosen or self.request.get("hyperparameters") or {}


class Training:
    """Advances jobs over time: validating_files, queued, running, and one of three final states."""

    columns: tuple[str, ...] = ("step", "train_loss", "train_accuracy", "valid_loss", "valid_mean_token_accuracy")
    sources: Mapping[str, str] = MappingProxyType({"train_accuracy": "train_mean_token_accuracy"})

    def __init__(
        self, clock: Clock, naming: Naming, settings: OpenAISettings, ledger: Ledger, files: Files, models: Models
    ) -> None:
        self._clock, self._naming, self._settings = clock, naming, settings
        self._ledger, self._files, self._models = ledger, files, models
        self._running: set[str] = set()
        self._waiting: list[Job] = []

    def begin(self, job: Job) -> None:
        """Start the validation of a new job."""
        self.say(job, f"Created fine-tuning job: {job.id}")
        self.say(job, f"Validating training file: {job.request['training_file']}")
        self._later(job, self._settings.validation_seconds, self._validate)

    def cancel(self, job: Job) -> None:
        """Cancel a job immediately; completed steps are billed."""
        self._bill(job)
        self._end(job, "cancelled", "The job was cancelled")

    def pause(self, job: Job) -> None:
        """Pause after the running step."""
        self._turn(job, "pausing")
        self._later(job, self._settings.step_seconds, self._stand_still)

    def _stand_still(self, job: Job) -> None:
        self._turn(job, "paused")
        self.say(job, "Fine-tuning job paused")
        self._leave(job)

    def resume(self, job: Job) -> None:
        """Resume a paused job once there is a free slot."""
        self.say(job, "Fine-tuning job resumed")
        self._run(job)

    def say(self, job: Job, message: str, level: str = "info", data: dict[str, float] | None = None) -> None:
        """Add an event."""
        job.events.append({
            "object": "fine_tuning.job.event", "id": self._naming.event(), "created_at": int(self._clock.now),
            "level": level, "message": message, "data": {} if data is None else data,
            "type": "message" if data is None else "metrics",
        })  # fmt: skip

    def _later(self, job: Job, seconds: float, what: Callable[[Job], None]) -> None:
        self._clock.later(job, seconds, what)

    def _turn(self, job: Job, status: str) -> None:
        """Change the state, and void the earlier state's scheduled actions."""
        job.turn += 1
        job.status = status

    def _validate(self, job: Job) -> None:
        if problem := self._problem(job):
            self._fail(job, problem)
            return
        job.status = "queued"
        self.say(job, "Files validated, moving job to queued state")
        self._later(job, self._settings.queue_seconds, self._run)

    def _problem(self, job: Job) -> dict[str, Any] | None:
        for param in ("training_file", "validation_file"):
            if file_id := job.request.get(param):
                stored = self._files.find(file_id)
                problem, data = self._look(stored, param, pairs=job.learns_pairs)
                if problem:
                    return problem
                if param == "training_file":
                    job.data = data
                else:
                    job.validation = data
        job.course = training.course(job.data.rows, job.hyperparameters)
        if self._cannot_pay(job):
            return {"code": "exceeded_quota", "message": TOO_DEAR, "param": None}
        return None

    def _look(
        self, stored: StoredFile | None, param: str, *, pairs: bool
    ) -> tuple[dict[str, Any] | None, training.Data]:
        kind = "Training" if param == "training_file" else "Validation"
        if stored is None:
            return {"code": f"invalid_{param}", "message": f"{kind} file was deleted.", "param": param}, training.Data()
        data = training.read(stored.path, pairs=pairs)
        if data.fault:
            message = f"The job failed due to an invalid {kind.lower()} file. Invalid file format: {data.fault}."
            return {"code": f"invalid_{param}", "message": message, "param": param}, data
        if param == "training_file" and data.rows < training.MINIMUM_ROWS:
            message = (
                f"Training file has {data.rows} example(s), but must have at least {training.MINIMUM_ROWS} examples"
            )
            return {"code": "invalid_n_examples", "message": message, "param": param}, data
        return None, data

    def _price(self, job: Job, tokens: int) -> Decimal:
        return self.price_per_million(job) * tokens / 1_000_000

    def price_per_million(self, job: Job) -> Decimal:
        """The list price of training."""
        return self._models.price(job.model).training

    def _cannot_pay(self, job: Job) -> bool:
        assert job.course is not None
        cost = self._price(job, job.data.tokens * job.course.epochs)
        return self._settings.credit is not None and self._ledger.total() + cost > self._settings.credit

    def _run(self, job: Job) -> None:
        if len(self._running) >= self._settings.running_limit:
            self._turn(job, "queued")
            self._waiting.append(job)
            return
        self._running.add(job.id)
        self._turn(job, "running")
        if self._settings.fail_next_job:
            job.failure, self._settings.fail_next_job = self._settings.fail_next_job, None
        self.say(job, "Fine-tuning job started")
        if job.failure:
            self._later(job, job.failure.after_seconds, self._break_off)
        self._later(job, self._settings.step_seconds, self._step)

    def _break_off(self, job: Job) -> None:
        assert job.failure is not None
        self._fail(job, job.failure.model_dump(exclude={"after_seconds"}))

    def _step(self, job: Job) -> None:
        assert job.course is not None
        job.step += 1
        found = self._measured(job, job.course)
        job.reported.append(found)
        self.say(job, _step_message(job.step, job.course.steps, found), data=found | {"total_steps": job.course.steps})
        if job.step % job.course.steps_per_epoch == 0:
            self._checkpoint(job, found)
        if job.step < job.course.steps:
            self._later(job, self._settings.step_seconds, self._step)
        else:
            self._succeed(job)

    def _measured(self, job: Job, course: training.Course) -> dict[str, float]:
        validated = job.validation is not None
        if not job.learns_pairs:
            return training.metrics(job.step, course, job.seed, validated=validated)
        return training.metrics_of_pairs(
            job.step, course, job.seed, validated=validated, rewards=self._settings.send_rewards
        )

    def _checkpoint(self, job: Job, found: dict[str, float]) -> None:
        assert job.course is not None
        name = self._naming.at_step(self._tuned_name(job), job.step, last=job.step == job.course.steps)
        job.checkpoints.append({
            "object": "fine_tuning.job.checkpoint", "id": self._naming.checkpoint(),
            "created_at": int(self._clock.now), "fine_tuned_model_checkpoint": name,
            "metrics": {name: value for name, value in found.items() if name in Metrics.model_fields},
            "fine_tuning_job_id": job.id, "step_number": job.step,
        })  # fmt: skip
        del job.checkpoints[:-KEPT_CHECKPOINTS]
        self.say(job, f"Checkpoint created at step {job.step}")

    def _tuned_name(self, job: Job) -> str:
        return self._naming.tuned(job.model, job.request.get("suffix") or "", job.id)

    def _succeed(self, job: Job) -> None:
        self._bill(job)
        job.fine_tuned_model = self._tuned_name(job)
        job.result_files = [self._files.keep(self._results(job), "step_metrics.csv", "fine-tune-results").id]
        self._models.add(job.fine_tuned_model, job.model, job.data.answers)
        self.say(job, f"New fine-tuned model created: {job.fine_tuned_model}")
        self._end(job, "succeeded", "The job has successfully completed")

    def _results(self, job: Job) -> bytes:
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        more = REWARDS if job.learns_pairs and self._settings.send_rewards else ()
        table.writerow([*self.columns, *more])
        for found in job.reported:
            table.writerow([found.get(self.sources.get(column, column), "") for column in (*self.columns, *more)])
        content = text.getvalue().encode()
        return base64.b64encode(content) if self._settings.encode_results else content

    def _bill(self, job: Job) -> None:
        if not job.step:
            return
        assert job.course is not None
        job.trained_tokens = job.data.tokens * job.course.epochs * job.step // job.course.steps
        self._ledger.charge(job.id, "training", self._price(job, job.trained_tokens))

    def _fail(self, job: Job, error: dict[str, Any]) -> None:
        job.error = error
        self._end(job, "failed", f"The job failed: {error['code']}", "error")

    def _end(self, job: Job, status: str, message: str, level: str = "info") -> None:
        self._turn(job, status)
        job.finished_at = self._clock.now
        self.say(job, message, level)
        self._leave(job)

    def _leave(self, job: Job) -> None:
        """Pass the slot, or the place in the queue, to the next job."""
        self._running.discard(job.id)
        self._waiting = [other for other in self._waiting if other is not job]
        if self._waiting:
            self._run(self._waiting.pop(0))


def _step_message(step: int, steps: int, found: dict[str, float]) -> str:
    message = f"Step {step}/{steps}: training loss={found['train_loss']:.2f}"
    for name, label in (("valid_loss", "validation"), ("full_valid_loss", "full validation")):
        if name in found:
            message += f", {label} loss={found[name]:.2f}"
    return message
