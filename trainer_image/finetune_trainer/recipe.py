"""What the code of `spec.code` works with: its context, and the built-in recipe in parts.

    from finetune_trainer import recipe

    run = recipe.context()                      # paths, spec, reports, stop requests
    model = recipe.load_model(run)              # the base, with adapters unless spec.method is Full
    recipe.fit(run, model)                      # trains from the newest checkpoint; sends the reports
    recipe.save(run, model)                     # into run.output

Each part can be replaced. The only requirement is a model in `run.output` at the end, as safetensors: a LoRA adapter
on the base or all weights, as `save_pretrained` writes them. The base's tokenizer is added afterwards.
"""

import contextlib
import json
import math
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune_api.exit_codes import ExitCode
from finetune_api.job import FineTuneJobSpec
from finetune_api.verdict import SplitName
from finetune_trainer.attempt.interruption import Interruption
from finetune_trainer.data import ChatTokenizer, Position, Row, Turn, encode
from finetune_trainer.training.code_reports import CodeReport, Writer
from finetune_trainer.training.own_code import CONTEXT_VARIABLE, CodeContext

if TYPE_CHECKING:
    from finetune_trainer.training.passes import Pass
    from finetune_trainer.training.token_store import TokenStore


class Context:
    """What the job's code is given, and how it reports."""

    def __init__(self, given: CodeContext) -> None:
        self._reports = Writer(Path(given.reports))
        self.interruption = Interruption()
        self._signals = contextlib.ExitStack()  # while open, a signal requests a stop instead of ending the process
        # Whoever starts child processes of the code ends them; only the main thread may install handlers.
        if os.getppid() == given.trainer and threading.current_thread() is threading.main_thread():
            self._signals.enter_context(self.interruption.install())
            self._signals.enter_context(self.interruption.deferred())
        self.reported_lines: int | None = None
        """How many lines of the recipe's record this process has reported."""
        self.job = given.job
        self.spec: FineTuneJobSpec = given.job.spec
        """The job's spec: hyperparameters, method, lora and all other fields as applied."""
        self.base_model = Path(given.base_model)
        """Folder of the base model."""
        self.data = {split: Path(path) for split, path in given.data.items()}
        """Validated JSON Lines files: `train` and, if the job has them, `validation` and `test`."""
        self.output = Path(given.output)
        """Where to write the finished model: an empty folder."""
        self.checkpoints = Path(given.checkpoints)
        """A folder that outlives the pod: its contents are there when the job resumes."""
        self.moment = given.moment
        """When the job's first attempt began: the time that chat templates write, the same in every attempt.

        transformers' own `apply_chat_template` uses the clock; most templates accept a `date_string` instead."""

    def restore_handlers(self) -> None:
        """Restore the previous signal handling."""
        self._signals.close()

    @property
    def stop_requested(self) -> bool:
        """Whether the pod is about to end: write a checkpoint, then call `stop`, within 100 seconds.

        Child processes of the code see it as well.
        """
        return self.interruption.is_requested or self._reports.is_asked_to_stop

    def stop(self) -> None:
        """Exit after writing a checkpoint; the next attempt starts the code again.

        Raises:
            SystemExit: always.
        """
        raise SystemExit(int(ExitCode.INTERRUPTED))

    def rows(self, split: SplitName = "train") -> Iterator[dict[str, Any]]:
        """Rows of a split: `prompt`, `completion` and optionally `system`; longer conversations have `messages`."""
        with self.data[split].open(encoding="utf-8") as file:
            yield from map(json.loads, file)

    def report(
        self,
        *,
        step: int,
        total_steps: int | None = None,
        epoch: float | None = None,
        loss: float | None = None,
        validation_loss: float | None = None,
        tokens: int = 0,
    ) -> None:
        """Report progress: it appears in the job's status, curves and record.

        Args:
            step: Steps done.
            total_steps: Total number of steps; without it no percentage and no remaining time are shown.
            epoch: Completed passes over the data.
            loss: Training loss of this step, nats per completion token.
            validation_loss: Loss on the validation set after this step.
            tokens: Tokens of this step, without padding; the curve weights the losses of steps by them.

        Raises:
            ValueError: a loss is not a finite number, or a number is negative or too large.
        """
        for name, value in (("loss", loss), ("validation_loss", validation_loss)):
            if value is not None and not math.isfinite(value):
                raise ValueError(f"{name} of step {step} is not a finite number")
        said = CodeReport(
            step=step, total_steps=total_steps, epoch=epoch, loss=loss, validation_loss=validation_loss, tokens=tokens
        )
        self._reports.line(said.model_dump_json(by_alias=True, exclude_none=True).encode())


@lru_cache(maxsize=1)
def context() -> Context:
    """The context of this process; from now on SIGTERM sets `stop_requested`.

    If the first call is not made on the main thread, SIGTERM ends the process as before.

    Raises:
        RuntimeError: the code was not started by `finetune-trainer`.
    """
    path = os.environ.get(CONTEXT_VARIABLE)
    if path is None:
        raise RuntimeError("start this code by a job's spec.code, or by `finetune-trainer run --code`")
    return Context(CodeContext.model_validate_json(Path(path).read_bytes()))


class _Fork(threading.local):
    """A thread's signal mask from before it forked."""

    mask: Iterable[int] = ()


_fork = _Fork()


def _block_signals() -> None:
    """A signal that arrives before the child process has restored its handling would be lost."""
    _fork.mask = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT))


def _restore_mask() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _fork.mask)


def _restore_handlers_in_child() -> None:
    """Let a forked process end by SIGTERM as usual: whoever sends it waits for the process to exit."""
    if context.cache_info().currsize:
        context().restore_handlers()
    _restore_mask()


os.register_at_fork(before=_block_signals, after_in_parent=_restore_mask, after_in_child=_restore_handlers_in_child)


def chat_tokenizer(run: Context) -> ChatTokenizer:
    """The base model's tokenizer with its chat template, as in the built-in recipe and the server."""
    return ChatTokenizer.from_folder(run.base_model, moment=run.moment)


def load_model(run: Context) -> Any:
    """The base model as spec.method needs it: with new adapters, in 4 bits for QLoRA, in float32 for Full."""
    from finetune_trainer.models.base_model import quiet_libraries
    from finetune_trainer.training.tuning import tunable_model

    quiet_libraries()
    return tunable_model(run.job, run.base_model)


def tokenised(run: Context, split: SplitName = "train") -> "TokenStore":
    """Token ids and labels of a split, by row: only completions carry loss."""
    from finetune_trainer.training.token_store import TokenStore

    chat = chat_tokenizer(run)
    encoded = encode(map(_as_row, run.rows(split)), chat, chat.row_limit(run.spec.hyperparameters))
    return TokenStore(((row.input_ids, row.labels) for row in encoded), decoder_start=chat.decoder_start)


def _as_row(fields: dict[str, Any]) -> Row:
    names = (("system", "system"), ("user", "prompt"), ("assistant", "completion"))
    turns: Any = [Turn(role, fields[name]) for role, name in names if name in fields]  # type: ignore[arg-type]
    messages = fields.get("messages", ())
    if messages:
        turns = [Turn(message["role"], message["content"]) for message in messages]
    unlearnt = (index for index, message in enumerate(messages) if message.get("weight") == 0)
    return Row(Position(), tuple(turns), unlearnt=tuple(unlearnt))


def fit(run: Context, model: Any, *, loss_sum: "Callable[[Any, Pass], Any] | None" = None) -> None:
    """The built-in training (order, schedule, checkpoints, validation, reports), from the newest checkpoint on.

    Args:
        run: The context.
        model: The result of `load_model`, or another model with the base's tokenizer.
        loss_sum: Loss of one forward pass, summed over the positions whose `batch["targets"]` is not -100. Default:
            negative log likelihood (`passes.loss_sum`).

    Raises:
        SystemExit: the pod is about to end; a checkpoint was written.
    """
    from finetune_trainer.attempt.metrics import FILE, Metrics
    from finetune_trainer.output.finished import fingerprint
    from finetune_trainer.storage.durable import sha256_of
    from finetune_trainer.training.objective import by_loss
    from finetune_trainer.training.origin import Origin
    from finetune_trainer.training.surroundings import Surroundings
    from finetune_trainer.training.tuning import build_trainer, fit_of, why_padded

    train, validation = tokenised(run), tokenised(run, "validation") if "validation" in run.data else None
    record = Metrics(run.checkpoints / FILE)
    origin = Origin(fingerprint(run.job, *map(sha256_of, run.data.values())))

    def tell(*_: int) -> None:
        _report_new_lines(run, record.lines, trainer.course.plan.total_steps)

    trainer = build_trainer(
        run.job,
        model,
        train,
        validation,
        fit=fit_of(run.job, model, train, validation),
        packed=loss_sum is None and why_padded(run.job, model) is None,
        around=Surroundings(origin, record, run.interruption, tell),
        objective=by_loss(loss_sum) if loss_sum else None,
    )
    trainer.run()
    tell()
    if run.stop_requested:
        run.stop()


def _report_new_lines(run: Context, lines: Sequence[Mapping[str, Any]], total_steps: int) -> None:
    """Report new lines of the record. The first call reports the whole last step, maybe of an earlier attempt.

    The trainer keeps that attempt's reports up to the first step that this one reports.
    """
    if run.reported_lines is None and lines:
        run.reported_lines = next(index for index, line in enumerate(lines) if line["step"] == lines[-1]["step"])
    for line in lines[run.reported_lines :]:
        about: dict[str, Any] = {"step": line["step"], "total_steps": total_steps, "epoch": line["epoch"]}
        run.report(
            **about, loss=line.get("loss"), validation_loss=line.get("validationLoss"), tokens=line.get("tokens", 0)
        )
    run.reported_lines = len(lines)


def save(run: Context, model: Any) -> None:
    """Write the adapter or the whole model to `run.output`."""
    from finetune_trainer.output.artifact import save_weights

    save_weights(run.output, model)
