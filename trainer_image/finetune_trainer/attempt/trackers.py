"""Sends the record of a run to experiment trackers, with transformers' own integrations.

Each tracker has its own thread, so that one that hangs delays neither the run nor another one. Its errors only appear
in the status. A resumed run continues the same run in the tracker. It sends the whole record again, since lines may
have been lost with a killed attempt; lines that arrived before are skipped. A tracker's run ends with the attempt and
its outcome, not with the training: evaluating and writing the model may fail too.
"""

import importlib.util
import logging
import queue
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from finetune_api.reasons import Reason
from finetune_api.trackers import TrackerName, TrackerState
from finetune_api.trainer import TrainerJob
from finetune_trainer.attempt import mlflow_run, weights_and_biases
from finetune_trainer.attempt.interruption import End
from finetune_trainer.errors import TrainerError
from finetune_trainer.storage.store_errors import trouble_of

TENSORBOARD_FOLDER = "tensorboard"
"""In the job's output folder during training, then in the artifact."""

LAST_SECONDS = 30.0
"""How long to wait for trackers at the end of the training, and again at the end of the run."""

_MOST_WAITING = 10_000
_NAMES = {
    "loss": "loss",
    "learningRate": "learning_rate",
    "gradNorm": "grad_norm",
    "validationLoss": "eval_loss",
    "rewardAccuracy": "rewards/accuracies",
    "rewardMargin": "rewards/margins",
    "chosenLoss": "chosen_loss",
}
_MODULES: dict[TrackerName, str] = {"mlflow": "mlflow", "tensorBoard": "tensorboardX", "wandb": "wandb"}

logger = logging.getLogger(__name__)


def require(job: TrainerJob) -> None:
    """Refuse a job with trackers whose libraries are not in this image.

    Raises:
        TrainerError: SpecInvalid.
    """
    for name in _asked(job):
        if importlib.util.find_spec(_MODULES[name]) is None:
            raise TrainerError(
                Reason.SPEC_INVALID,
                f"spec.trackers.{name}: this image has no {_MODULES[name]}",
                "Ask an admin for a trainerImage with the trackers extra, or apply the job without it.",
            )


class _JobArguments:
    """The arguments of a run, except that integrations get the job's settings from `to_dict`.

    Our loop has its own batching and schedule, so most of the arguments are unused defaults of transformers.
    """

    def __init__(self, job: TrainerJob, arguments: Any) -> None:
        self._job, self._arguments = job, arguments
        self.run_name = f"{job.namespace}/{job.name}"

    def __getattr__(self, name: str) -> Any:
        return getattr(self._arguments, name)

    def to_dict(self) -> dict[str, Any]:
        """The settings, named as in a manifest."""
        spec = self._job.spec
        parts = {"lora": spec.adapters, "preference": spec.preference}
        below = {f"{part}.{name}": value for part, what in parts.items() if what for name, value in what.wire().items()}
        own = {"learningRate": self._arguments.learning_rate, "totalSteps": self._arguments.max_steps}
        return {"baseModel": spec.base_model, "method": spec.method, **spec.hyperparameters.wire(), **own, **below}


class _TrackerThread:
    """One tracker, with its thread, its queue of calls, and its state."""

    def __init__(self, job: TrainerJob, name: TrackerName) -> None:
        self.name = name
        self.tracked: TrackerState | None = None
        """None until its run has started, or failed to."""
        self.is_late = False
        """Whether it already exceeded its time once."""
        self._job = job
        self._integration: Any = None
        self._arguments: Any = None
        self._calls: queue.Queue[Callable[[], None] | None] = queue.Queue(_MOST_WAITING)
        self._thread = threading.Thread(target=self._run, name=f"tracker-{name}", daemon=True)

    @property
    def has_begun(self) -> bool:
        """Whether it was ever started."""
        return self._thread.ident is not None

    def begin(self, arguments: Any, model: Any) -> None:
        """Start or resume its run; later calls come after that."""
        self._arguments = arguments
        self._thread.start()
        self._put(partial(self._begin, model))

    def tell(self, lines: Sequence[dict[str, Any]]) -> None:
        """Send lines of the record."""
        self._put(partial(self._tell, lines))

    def trained(self) -> threading.Event:
        """No more lines follow; returns an event that is set once it has processed this."""
        processed = threading.Event()
        self._put(lambda: self._act(lambda one: one.trained()))
        self._put(processed.set)
        if not self._thread.is_alive():
            processed.set()
        return processed

    def end(self, how: End) -> None:
        """End its run and its thread."""
        self._put(lambda: self._act(lambda one: one.end(how)))
        self._put(None)

    def wait(self, seconds: float) -> None:
        """Wait up to this long for its end; records a problem if it does not end."""
        self._thread.join(seconds)
        if self._thread.is_alive():
            self._record_problem("it did not answer in time")

    def _put(self, call: Callable[[], None] | None) -> None:
        try:
            self._calls.put_nowait(call)
        except queue.Full:
            self._record_problem("it is too slow: some steps are missing")

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            call()

    def _begin(self, model: Any) -> None:
        name = self.name
        try:
            integration = _MAKERS[name](self._job)
            integration.on_train_begin(self._arguments, _state(0), None, model=model)
            self.tracked = TrackerState(name=name, url=_URLS[name](self._job))
            self._integration = integration
        except Exception as error:
            logger.warning("spec.trackers.%s: %s", name, type(error).__name__)
            logger.info("spec.trackers.%s", name, exc_info=error)  # traceback for a pod's log only
            self._record_problem(self._cause(error))

    def _tell(self, lines: Sequence[dict[str, Any]]) -> None:
        for line in lines:
            of = "eval_" if "validationLoss" in line else ""
            numbers = {f"{of}{_NAMES[name].removeprefix(of)}": value for name, value in line.items() if name in _NAMES}
            self._act(partial(_log_to, self._arguments, _state(line["step"]), numbers))

    def _act(self, action: Callable[[Any], None]) -> None:
        if self._integration is None:
            return
        try:
            action(self._integration)
        except Exception as error:  # noqa: BLE001 - a tracker's error must not affect the run
            logger.warning("spec.trackers.%s: %s", self.name, type(error).__name__)
            self._record_problem(f"some steps are missing: {self._cause(error)}")

    def _cause(self, error: Exception) -> str:
        return _cause(error, keyed=mlflow_run.is_keyed(self._job))

    def _record_problem(self, problem: str) -> None:
        """Record the first problem only: later ones may be consequences."""
        found = self.tracked or TrackerState(name=self.name)
        if found.problem is None:
            self.tracked = found.model_copy(update={"problem": problem})


class Trackers:
    """The trackers of a job with the built-in training. They are not started without a call of `follow`."""

    def __init__(self, job: TrainerJob) -> None:
        self._job = job
        self._arguments: Any = None
        self._model: Any = None
        self._threads = [_TrackerThread(job, name) for name in _asked(job)]

    @property
    def tracked(self) -> list[TrackerState] | None:
        """The state of each; before the start, known obstacles to it."""
        return [state for one in self._threads if (state := one.tracked or self._obstacle(one.name))] or None

    def _obstacle(self, name: TrackerName) -> TrackerState | None:
        why = _OBSTACLES[name](self._job) if name in _OBSTACLES else None
        return TrackerState(name=name, problem=why) if why else None

    def follow(self, arguments: Any, model: Any) -> None:
        """Set the model in training and its TrainingArguments."""
        self._arguments, self._model = _JobArguments(self._job, arguments), model

    def log(self, record: Sequence[dict[str, Any]]) -> None:
        """Send the last line of the record; the first time start the trackers and send all of it."""
        for one in self._threads:
            if one.has_begun:
                one.tell(record[-1:])
            else:
                one.begin(self._arguments, self._model)
                one.tell(list(record))
        self._model = None  # the evaluation may load another model, without room for both

    def catch_up(self, record: Sequence[dict[str, Any]]) -> None:
        """Send the record if no step was left to train: an earlier attempt may not have sent all of it."""
        if not self._have_begun:
            self.log(record)

    @property
    def _have_begun(self) -> bool:
        return any(one.has_begun for one in self._threads)

    def trained(self) -> None:
        """No more lines follow; afterwards the trackers' files are complete, unless that takes over LAST_SECONDS."""
        deadline = time.monotonic() + LAST_SECONDS
        ending = [(one, one.trained()) for one in self._threads if one.has_begun]
        for one, event in ending:
            one.is_late = not event.wait(max(0.0, deadline - time.monotonic()))

    def end(self, how: End) -> None:
        """End the trackers' runs with the attempt's outcome, within LAST_SECONDS.

        Also a run left by a killed attempt, if this one did not get to training.
        """
        if not self._have_begun:
            self._end_of_earlier(how)
            return
        deadline = time.monotonic() + LAST_SECONDS
        for one in self._threads:
            one.end(how)
        for one in self._threads:
            one.wait(0 if one.is_late else max(0.0, deadline - time.monotonic()))

    def _end_of_earlier(self, how: End) -> None:
        """Only MLflow needs this: the other servers notice when no more data arrives."""
        if "mlflow" in _asked(self._job) and mlflow_run.may_be_open(self._job):
            ending = threading.Thread(target=self._end_mlflow, args=(how,), name="trackers", daemon=True)
            ending.start()
            ending.join(LAST_SECONDS)

    def _end_mlflow(self, how: End) -> None:
        try:
            mlflow_run.end_earlier(self._job, how)
        except Exception as error:  # noqa: BLE001 - a tracker's error must not affect the run
            said = _cause(error, keyed=mlflow_run.is_keyed(self._job))
            logger.warning("spec.trackers.mlflow: the earlier run could not be ended: %s", said)


def _log_to(arguments: Any, state: Any, numbers: dict[str, Any], integration: Any) -> None:
    integration.on_log(arguments, state, None, logs=dict(numbers))


def _asked(job: TrainerJob) -> list[TrackerName]:
    asked = job.spec.trackers
    fields: Iterator[TrackerName] = iter(_MODULES)
    return [name for name in fields if asked and name in asked.wire()]


def _state(step: int) -> Any:
    """The parts of transformers' TrainerState that its integrations read."""
    return SimpleNamespace(is_world_process_zero=True, is_hyper_param_search=False, trial_name=None, global_step=step)


def _cause(error: Exception, *, keyed: bool = True) -> str:
    """A readable cause: a library's own text may contain addresses with keys."""
    if isinstance(error, weights_and_biases.NotReachableError):
        return str(error)
    why = trouble_of(error) or mlflow_run.trouble_of(error, keyed=keyed) or weights_and_biases.trouble_of(error)
    return f"it does not answer as it should ({type(error).__name__})" + (f": {why}" if why else "")


def _tensor_board(job: TrainerJob) -> Any:
    from tensorboardX import SummaryWriter  # type: ignore[import-untyped]
    from transformers.integrations.integration_utils import TensorBoardCallback

    class Integration(TensorBoardCallback):
        """Its files belong to the artifact, so they are closed before that is written."""

        def trained(self) -> None:
            self.on_train_end(None, None, None)  # type: ignore[no-untyped-call]

        def end(self, _how: End) -> None:
            self.trained()

    folder = Path(job.output) / TENSORBOARD_FOLDER
    shutil.rmtree(folder, ignore_errors=True)  # buffered minutes of a killed attempt are missing in its files
    return Integration(SummaryWriter(str(folder)))  # type: ignore[no-untyped-call]


_MAKERS: dict[TrackerName, Callable[[TrainerJob], Any]] = {
    "mlflow": mlflow_run.integration,
    "tensorBoard": _tensor_board,
    "wandb": weights_and_biases.integration,
}
_OBSTACLES: dict[TrackerName, Callable[[TrainerJob], str | None]] = {
    "mlflow": mlflow_run.obstacle,
    "wandb": weights_and_biases.obstacle,
}
_URLS: dict[TrackerName, Callable[[TrainerJob], str]] = {
    "mlflow": mlflow_run.url,
    "tensorBoard": lambda _job: TENSORBOARD_FOLDER,
    "wandb": weights_and_biases.url,
}
