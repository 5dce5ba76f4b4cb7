"""The record of a run goes to experiment trackers too, by transformers' own integrations.

A thread talks to each of them, so that one that hangs holds up neither the run nor another one. What goes wrong there
is said in status and changes nothing else. A run that goes on after an interruption goes on in the same run of the
tracker. It goes through the record from its beginning: a killed attempt may have had lines under way. What has arrived
comes once. A run of a tracker ends when the attempt does, and as it does: measuring and writing a model may fail, too.
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
from finetune_api.trackers import Tracked, TrackerName
from finetune_api.trainer import TrainerJob
from finetune_trainer.attempt import mlflow_run, weights_and_biases
from finetune_trainer.attempt.interruption import End
from finetune_trainer.errors import TrainerError
from finetune_trainer.storage.store_errors import trouble_of

TENSORBOARD_FOLDER = "tensorboard"
"""Below the job's output while it trains, and in the artifact."""

LAST_SECONDS = 30.0
"""How long a run waits for its trackers at the end of its training, and once more at its own end."""

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
    """Refuse a job whose trackers this image has no libraries for.

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


class _Told:
    """The arguments of a run, but that an integration is told the job's settings.

    The loop takes whole steps and a rate of its own: what it leaves of the arguments are transformers' defaults.
    """

    def __init__(self, job: TrainerJob, arguments: Any) -> None:
        self._job, self._arguments = job, arguments
        self.run_name = f"{job.namespace}/{job.name}"

    def __getattr__(self, name: str) -> Any:
        return getattr(self._arguments, name)

    def to_dict(self) -> dict[str, Any]:
        """The settings, as a manifest spells them."""
        spec = self._job.spec
        parts = {"lora": spec.adapters, "preference": spec.preference}
        below = {f"{part}.{name}": value for part, what in parts.items() if what for name, value in what.wire().items()}
        own = {"learningRate": self._arguments.learning_rate, "totalSteps": self._arguments.max_steps}
        return {"baseModel": spec.base_model, "method": spec.method, **spec.hyperparameters.wire(), **own, **below}


class _Follower:
    """One tracker, what it is told, and how it is doing. A thread of its own talks to it."""

    def __init__(self, job: TrainerJob, name: TrackerName) -> None:
        self.name = name
        self.tracked: Tracked | None = None
        """None until its run has begun, or cannot."""
        self.is_late = False
        """Whether it took too long once already."""
        self._job = job
        self._integration: Any = None
        self._arguments: Any = None
        self._calls: queue.Queue[Callable[[], None] | None] = queue.Queue(_MOST_WAITING)
        self._thread = threading.Thread(target=self._run, name=f"tracker-{name}", daemon=True)

    @property
    def has_begun(self) -> bool:
        """Whether it was ever told anything."""
        return self._thread.ident is not None

    def begin(self, arguments: Any, model: Any) -> None:
        """Begin its run, or go on with it; what it is told from now on comes after that."""
        self._arguments = arguments
        self._thread.start()
        self._put(partial(self._begin, model))

    def tell(self, lines: Sequence[dict[str, Any]]) -> None:
        """Pass lines of the record on."""
        self._put(partial(self._tell, lines))

    def trained(self) -> threading.Event:
        """No more lines come; what is returned is set when it knows that."""
        told = threading.Event()
        self._put(lambda: self._act(lambda one: one.trained()))
        self._put(told.set)
        if not self._thread.is_alive():
            told.set()
        return told

    def end(self, how: End) -> None:
        """Nothing comes any more."""
        self._put(lambda: self._act(lambda one: one.end(how)))
        self._put(None)

    def wait(self, seconds: float) -> None:
        """Wait so long for its end; if that does not come, it is said."""
        self._thread.join(seconds)
        if self._thread.is_alive():
            self._blame("it did not answer in time")

    def _put(self, call: Callable[[], None] | None) -> None:
        try:
            self._calls.put_nowait(call)
        except queue.Full:
            self._blame("it is too slow: some steps are missing")

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            call()

    def _begin(self, model: Any) -> None:
        name = self.name
        try:
            integration = _MAKERS[name](self._job)
            integration.on_train_begin(self._arguments, _state(0), None, model=model)
            self.tracked = Tracked(name=name, url=_URLS[name](self._job))
            self._integration = integration
        except Exception as error:
            logger.warning("spec.trackers.%s: %s", name, type(error).__name__)
            logger.info("spec.trackers.%s", name, exc_info=error)  # for a pod's log; a person has the words
            self._blame(self._said(error))

    def _tell(self, lines: Sequence[dict[str, Any]]) -> None:
        for line in lines:
            of = "eval_" if "validationLoss" in line else ""
            numbers = {f"{of}{_NAMES[name].removeprefix(of)}": value for name, value in line.items() if name in _NAMES}
            self._act(partial(_passed_on, self._arguments, _state(line["step"]), numbers))

    def _act(self, action: Callable[[Any], None]) -> None:
        if self._integration is None:
            return
        try:
            action(self._integration)
        except Exception as error:  # noqa: BLE001 - a tracker's trouble is no trouble of the run
            logger.warning("spec.trackers.%s: %s", self.name, type(error).__name__)
            self._blame(f"some steps are missing: {self._said(error)}")

    def _said(self, error: Exception) -> str:
        return _said(error, keyed=mlflow_run.is_keyed(self._job))

    def _blame(self, problem: str) -> None:
        """The first problem stays: what comes after it may be its echo."""
        found = self.tracked or Tracked(name=self.name)
        if found.problem is None:
            self.tracked = found.model_copy(update={"problem": problem})


class Trackers:
    """Those of a job's built-in training. Nobody hears of a training that was not begun with `follow`."""

    def __init__(self, job: TrainerJob) -> None:
        self._job = job
        self._arguments: Any = None
        self._model: Any = None
        self._followers = [_Follower(job, name) for name in _asked(job)]

    @property
    def tracked(self) -> list[Tracked] | None:
        """How each is doing by now; before one is begun, what is known to keep it from that."""
        return [told for one in self._followers if (told := one.tracked or self._kept_out(one.name))] or None

    def _kept_out(self, name: TrackerName) -> Tracked | None:
        why = _OBSTACLES[name](self._job) if name in _OBSTACLES else None
        return Tracked(name=name, problem=why) if why else None

    def follow(self, arguments: Any, model: Any) -> None:
        """What is trained from now on, and transformers' TrainingArguments of it."""
        self._arguments, self._model = _Told(self._job, arguments), model

    def log(self, record: Sequence[dict[str, Any]]) -> None:
        """Pass on the last line of the record; the first time all of it, to a run that begins or goes on there."""
        for one in self._followers:
            if one.has_begun:
                one.tell(record[-1:])
            else:
                one.begin(self._arguments, self._model)
                one.tell(list(record))
        self._model = None  # it may be another one that is measured in the end, with no room for both

    def catch_up(self, record: Sequence[dict[str, Any]]) -> None:
        """Where nothing was left to learn no line came, and yet an earlier attempt may have told them less than all."""
        if not self._have_begun:
            self.log(record)

    @property
    def _have_begun(self) -> bool:
        return any(one.has_begun for one in self._followers)

    def trained(self) -> None:
        """No more lines come; files of theirs are whole after this, unless it takes more than LAST_SECONDS."""
        deadline = time.monotonic() + LAST_SECONDS
        told = [(one, one.trained()) for one in self._followers if one.has_begun]
        for one, event in told:
            one.is_late = not event.wait(max(0.0, deadline - time.monotonic()))

    def end(self, how: End) -> None:
        """Their runs end as the attempt does; what is on its way may take LAST_SECONDS.

        So does one that an earlier attempt was killed in, where this attempt has come to no training.
        """
        if not self._have_begun:
            self._end_of_earlier(how)
            return
        deadline = time.monotonic() + LAST_SECONDS
        for one in self._followers:
            one.end(how)
        for one in self._followers:
            one.wait(0 if one.is_late else max(0.0, deadline - time.monotonic()))

    def _end_of_earlier(self, how: End) -> None:
        """The others have no state: their servers see that nothing comes any more."""
        if "mlflow" in _asked(self._job) and mlflow_run.may_be_open(self._job):
            ending = threading.Thread(target=self._end_mlflow, args=(how,), name="trackers", daemon=True)
            ending.start()
            ending.join(LAST_SECONDS)

    def _end_mlflow(self, how: End) -> None:
        try:
            mlflow_run.end_earlier(self._job, how)
        except Exception as error:  # noqa: BLE001 - a tracker's trouble is no trouble of the run
            said = _said(error, keyed=mlflow_run.is_keyed(self._job))
            logger.warning("spec.trackers.mlflow: the earlier run could not be ended: %s", said)


def _passed_on(arguments: Any, state: Any, numbers: dict[str, Any], integration: Any) -> None:
    integration.on_log(arguments, state, None, logs=dict(numbers))


def _asked(job: TrainerJob) -> list[TrackerName]:
    asked = job.spec.trackers
    fields: Iterator[TrackerName] = iter(_MODULES)
    return [name for name in fields if asked and name in asked.wire()]


def _state(step: int) -> Any:
    """As much of transformers' TrainerState as its integrations look at."""
    return SimpleNamespace(is_world_process_zero=True, is_hyper_param_search=False, trial_name=None, global_step=step)


def _said(error: Exception, *, keyed: bool = True) -> str:
    """A library's own text may quote addresses with keys."""
    if isinstance(error, weights_and_biases.NotReachableError):
        return str(error)
    why = trouble_of(error) or mlflow_run.trouble_of(error, keyed=keyed) or weights_and_biases.trouble_of(error)
    return f"it does not answer as it should ({type(error).__name__})" + (f": {why}" if why else "")


def _tensor_board(job: TrainerJob) -> Any:
    from tensorboardX import SummaryWriter  # type: ignore[import-untyped]
    from transformers.integrations.integration_utils import TensorBoardCallback

    class Integration(TensorBoardCallback):
        """Its files belong to the artifact: they are closed before that is written."""

        def trained(self) -> None:
            self.on_train_end(None, None, None)  # type: ignore[no-untyped-call]

        def end(self, _how: End) -> None:
            self.trained()

    folder = Path(job.output) / TENSORBOARD_FOLDER
    shutil.rmtree(folder, ignore_errors=True)  # it keeps the last minutes in memory: a killed attempt's have gaps
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
