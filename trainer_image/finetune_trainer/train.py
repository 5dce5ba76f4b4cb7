"""`finetune-trainer train`: what the pod runs. `execute` is the whole recipe, top to bottom; `run` calls it too.

    finished before? → find the model → check the data → load → tokenise → train → measure → write the artifact
                                                         └── or the user's own code ──┘

The job comes from the environment; how it goes leaves by the report. Each step's how is in the file it is named after.
"""

import argparse
import logging
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune_api.job_status import ArtifactRef, Failure, TrainingResult
from finetune_api.names import CHECKPOINTS_FOLDER
from finetune_api.reasons import Reason
from finetune_api.trainer import TrainerJob
from finetune_api.verdict import DatasetVerdict
from finetune_trainer.attempt import launch, mlflow_run, outcome, pod_log, trackers
from finetune_trainer.attempt.interruption import Interruption
from finetune_trainer.attempt.metrics import FILE, Metrics
from finetune_trainer.attempt.report import Reporter, pod_reporter
from finetune_trainer.computing import four_bit, garbage, gpus, torch_settings
from finetune_trainer.computing.limits import cpu_threads
from finetune_trainer.computing.ranks import join
from finetune_trainer.data import ChatTokenizer
from finetune_trainer.data.audit import Audited
from finetune_trainer.data.verdict import check_dataset, require_valid
from finetune_trainer.errors import TrainerError
from finetune_trainer.evaluation.contest import Contest
from finetune_trainer.evaluation.kept import FOLDER as ANSWERS
from finetune_trainer.evaluation.material import Material, prepare
from finetune_trainer.evaluation.measuring import Measuring
from finetune_trainer.evaluation.models import Model, Tuned, require_answers
from finetune_trainer.evaluation.page import page
from finetune_trainer.job.given import job_given
from finetune_trainer.models import base_alike, base_model, base_place, base_refusals, memory, memory_fit
from finetune_trainer.models.base_probe import Probe, probe
from finetune_trainer.models.validation import config_file
from finetune_trainer.output import artifact, merge, pushes
from finetune_trainer.output.finished import data_hashes, fingerprint, was_finished, with_pushes
from finetune_trainer.output.keeping import Keeping, followed, kept
from finetune_trainer.storage.durable import write_errors
from finetune_trainer.training import (
    code_before,
    diverged,
    left_tokenizer,
    moment,
    own_code,
    own_model,
    rounded,
    unchanged,
)
from finetune_trainer.training.attempt import Attempt
from finetune_trainer.training.batches import Plan
from finetune_trainer.training.origin import Origin
from finetune_trainer.training.pair_store import PairStore
from finetune_trainer.training.progress import Pulse
from finetune_trainer.training.surroundings import Surroundings
from finetune_trainer.training.token_store import TokenStore
from finetune_trainer.training.tokenised import Tokenised
from finetune_trainer.training.tuning import (
    Held,
    build_trainer,
    compute_dtype_of,
    device,
    fit_of,
    learning_rate_of,
    plan_of,
    require_works,
    why_padded,
)

if TYPE_CHECKING:
    from finetune_trainer.training.step_trainer import StepTrainer
    from finetune_trainer.training.steps import Store

logger = logging.getLogger(__name__)


def main(args: argparse.Namespace) -> int:  # noqa: ARG001 - it has no flags
    """Do the job that FINETUNE_JOB describes."""
    pod_log.begin()
    try:
        job = job_given(TrainerJob, "By hand: finetune-trainer run -f job.yaml --output tuned.")
    except TrainerError as error:
        return outcome.complain(error)
    if launch.is_needed(job):
        return launch.main(job)
    reporter, interruption = pod_reporter(launch.told_to_report(job), launch.message_path()), Interruption()
    return outcome.run_to_end(lambda: execute(job, reporter, interruption), reporter, interruption)


def execute(job: TrainerJob, reporter: Reporter, interruption: Interruption, *, allow_local: bool = False) -> None:
    """Do the job: afterwards the report of rank 0 says Succeeded and the artifact is whole.

    `allow_local` lets datasets be files of this machine.

    Raises:
        TrainerError: what the user can mend.
        Interrupted: somebody asked to stop; the newest checkpoint is whole.
    """
    if job.spec.code is None:  # which may be for other devices
        gpus.require()
    torch_settings.prepare(max(1, cpu_threads() // job.ranks_per_node))
    world = join(job.ranks_per_node)
    with kept(job) if world.is_first else followed(job, world.rank) as keeping:
        reporter.saved_step = keeping.saved_step
        followers = trackers.Trackers(keeping.job)
        _execute(keeping, Attempt(keeping.job, reporter, interruption, world, followers, allow_local=allow_local))


def _execute(keeping: Keeping, attempt: Attempt) -> None:
    job, world, interruption = attempt.job, attempt.world, attempt.interruption
    if world.is_first:  # first of all: what an earlier attempt is writing at the moment goes, and must not come after
        with write_errors(Path(job.output)):
            interruption.stop_when_passed(keeping.fence)
    if world.tell("finished", lambda: _was_finished(attempt)):
        return
    attempt = replace(attempt, moment=moment.of_run(Path(job.output), world))
    trackers.require(job)
    pushes.require_keys(job.spec.artifact.push)
    attempt.tell_tracked()  # before the model is loaded: whoever wants trackers may still stop it
    with attempt.followed():
        folder, verdict = _inputs(attempt)
        train = _train_by_own_code if job.spec.code else _train_by_recipe
        run, result = train(attempt, folder, verdict)
        if world.is_first:
            _finish(run, result, keeping)


def _inputs(attempt: Attempt) -> tuple[Path, DatasetVerdict]:
    """Where the base model is, and the data, which can be used."""
    job, world = attempt.job, attempt.world
    folder = base_place.locate(job)
    config_file.require_for(job.spec, folder)
    if job.spec.method != "QLoRA":
        four_bit.leave_out(folder)
    base_alike.require(world, folder)
    told = world.tell("data", lambda: _checked_data(attempt, folder).wire())
    attempt.interruption.check()  # a signal may have come where Python passes its exception over, as in a destructor
    return folder, DatasetVerdict.model_validate(told)


def _was_finished(attempt: Attempt) -> bool:
    """Whether an earlier attempt wrote the artifact; killed right then, it has left what it needed on the way."""
    found = was_finished(attempt.job, attempt.reporter, allow_local=attempt.allow_local)
    if found:
        attempt.interruption.over()  # the result was told, and stands: what follows is not left half done
        attempt.tell_followers("Finished")
        _clear(attempt.job)
    return found


def _finish(run: "Run", result: TrainingResult, keeping: Keeping) -> None:
    """Measure, merge, write the artifact and tell of it."""
    job, interruption = run.job, run.attempt.interruption
    contest, failure = _evaluate(run)
    result = result.model_copy(update={"evaluation_failure": failure})
    interruption.check()
    result = _with(result, _merge(run))
    interruption.check()
    interruption.before_writing()
    reference = keeping.publish(_written(run, result, contest))
    run.attempt.tell_followers("Finished")
    _clear(job)
    result = result.model_copy(update={"artifact": reference})
    run.attempt.reporter.update(phase="Succeeded", result=with_pushes(job, result))


def _clear(job: TrainerJob) -> None:
    """What was needed on the way to the artifact goes.

    One that a platform has yet to take may be lost: then all of this makes it again, and nothing is done twice.
    """
    if not job.artifact_folder:
        kept = (CHECKPOINTS_FOLDER, ANSWERS, own_code.MODEL_FOLDER, mlflow_run.RUNS_FOLDER, trackers.TENSORBOARD_FOLDER)
        for rest in kept:
            shutil.rmtree(Path(job.output) / rest, ignore_errors=True)
        moment.forget(Path(job.output))
        code_before.forget(Path(job.output))


def _written(run: "Run", result: TrainingResult, contest: Contest | None) -> ArtifactRef:
    curves, found = artifact.loss_svg(run.metrics, run.job), contest.result if contest else None
    return artifact.write(
        run.job,
        run.answering,
        artifact.Finished(fingerprint(run.job), run.verdict, result, found, run.metrics.curves(), run.code_sha256),
        base=run.base,
        record=run.metrics,
        contest=contest,
        pages={"loss.svg": curves, "report.html": _page(run, result, contest, curves)},
        before_rename=run.attempt.interruption.before_writing,
    )


@dataclass
class Run:
    """All that a run works with once its data is known to be good."""

    attempt: Attempt
    folder: Path
    """Of the base model."""
    verdict: DatasetVerdict
    model: Any
    tokenizer: Any
    chat: ChatTokenizer
    train: "Store"
    validation: "Store | None"
    plan: Plan
    fit: memory.Fit
    compute_dtype: Any
    base: Probe
    """Of the base model, where what is learnt is an adapter on it."""
    metrics: Metrics
    """Rank 0's is the run's record; the others' go with their pods."""
    test: TokenStore | None
    asked: Material | None
    """The test set, where the job has one."""
    padded: str | None
    """Why rows are not packed; None where they are."""
    audited: list[Audited]
    """A few rows of the training set, with the tokens that carry loss."""
    shards: int
    """Ranks among which the model was shared out while it was trained."""
    code_sha256: str | None = None
    """Of the job's own code, as it was when it was begun."""

    @property
    def job(self) -> TrainerJob:
        """The attempt's."""
        return self.attempt.job

    @property
    def answering(self) -> Model:
        """The model as it is now, with what it is asked through."""
        return Model(self.model, self.tokenizer, self.chat)

    @property
    def learnt(self) -> str:
        """What it learns from, as a hash."""
        return fingerprint(self.job, *data_hashes(self.verdict))


def _checked_data(attempt: Attempt, folder: Path) -> DatasetVerdict:
    """The verdict on the data, reported; no model is loaded for data that cannot be used."""
    job, chat = attempt.job, ChatTokenizer.from_folder(folder, moment=attempt.moment)
    verdict = check_dataset(job.spec, tokenizer=chat, allow_local=attempt.allow_local, air_gapped=job.air_gapped)
    attempt.reporter.update(dataset=verdict)
    require_valid(verdict)
    return verdict


def _train_by_recipe(attempt: Attempt, folder: Path, verdict: DatasetVerdict) -> tuple[Run, TrainingResult]:
    """The built-in recipe. All that takes long and asks nobody comes before the ranks meet."""
    garbage.import_for_good("finetune_trainer.training.step_trainer", "peft", "matplotlib.figure")
    base_model.quiet_libraries()
    job, world, reporter = attempt.job, attempt.world, attempt.reporter
    width = compute_dtype_of(job).itemsize
    shards = world.tell(
        "shards", lambda: memory_fit.require(job.spec, folder, verdict, reporter, compute_bytes=width, ranks=world.size)
    )
    held = Held.of(job, folder, world, shards)
    run = _prepare(attempt, folder, verdict, held.model, shards=shards)
    if shards == 1:  # shared out it has no weights yet
        require_works(job, folder, run.model, run.chat.decoder_start)
        if run.asked is not None:
            require_answers(folder, run.answering)
        run.padded = why_padded(job, run.model)
    attempt.interruption.check()
    with world.formed():
        if shards > 1:
            held.spread(run.compute_dtype)
            require_works(
                job, folder, run.model, run.chat.decoder_start
            )  # every rank computes in it, and comes to the same
            padded = why_padded(job, run.model)
            run.padded = world.tell("padded", lambda: padded)
        logger.info("rows are %s", "packed" if run.padded is None else f"padded, not packed: {run.padded}")
        trainer = _train(run)
        memory_fit.report_peak(reporter, trainer.lesson.halvings)
        result = _result(run, trainer)
        run.model = held.released(trainer, run.compute_dtype)
    if world.is_first and job.spec.method == "Full":
        result = _with(result, rounded.little_kept(folder, run.model, run.compute_dtype))
    return run, result


def _train_by_own_code(attempt: Attempt, folder: Path, verdict: DatasetVerdict) -> tuple[Run, TrainingResult]:
    """The user's code; no model is loaded here before it has ended. It has its pod to itself: there are no ranks."""
    job = attempt.job
    own_model.require_base(job, folder)
    if job.spec.artifact.merge:
        base_refusals.require_plain_weights(folder)
    result, code = own_code.train(attempt, folder, verdict, learnt=fingerprint(job, *data_hashes(verdict)))
    base_model.quiet_libraries()
    left = Path(job.output) / own_code.MODEL_FOLDER
    model = own_model.load(job, folder, left, compute_dtype_of(job))
    result = _with(result, unchanged.nothing_learnt(folder, left, model))
    result = _with(result, left_tokenizer.left_out(folder, left))
    own_code.found_good(job, code, result)
    run = _prepare(attempt, folder, verdict, model.to(device()))
    run.code_sha256 = code.sha256
    attempt.interruption.check()
    return run, result


def _prepare(attempt: Attempt, folder: Path, verdict: DatasetVerdict, model: Any, *, shards: int = 1) -> Run:
    """Tokenise the data, and decide how model and data go together."""
    job, world = attempt.job, attempt.world
    chat = ChatTokenizer.from_folder(folder, moment=attempt.moment)
    data = Tokenised(job, chat, verdict, world, allow_local=attempt.allow_local)
    train, validation = data.learnt("train"), data.learnt("validation")
    test = data.answers("test") if world.is_first else None  # the others do not measure
    asked = prepare(job, chat, verdict, allow_local=attempt.allow_local) if world.is_first else None
    assert train is not None  # noqa: S101 - dataset.train is required
    stores = [store for store in (train, validation, test) if store]
    base_refusals.require_tokens(model, folder, max(store.largest_id for store in stores))
    if not model.config.is_encoder_decoder:
        texts = [store.documents if isinstance(store, PairStore) else store for store in stores]
        base_refusals.require_positions(folder, model, max(one.longest for one in texts), "dataset: its longest row")
    return Run(
        attempt=attempt,
        folder=folder,
        verdict=verdict,
        model=model,
        tokenizer=base_model.load_tokenizer(folder, trust_remote_code=job.trust_remote_code),
        chat=chat,
        train=train,
        validation=validation,
        plan=plan_of(job, train),
        fit=fit_of(job, model, train, validation, shards),
        padded=None,
        compute_dtype=compute_dtype_of(job),
        base=probe(folder) if hasattr(model, "peft_config") else {},
        metrics=Metrics((Path(job.output) if world.is_first else launch.scratch()) / FILE),
        test=test,
        asked=asked,
        audited=data.audited(),
        shards=shards,
    )


def _train(run: Run) -> "StepTrainer":
    """Train from the newest checkpoint or the start to the end.

    Raises:
        Interrupted: somebody asked to stop; a checkpoint of the last whole step was written.
    """
    reporter, interruption, world = run.attempt.reporter, run.attempt.interruption, run.attempt.world
    followers, pulse = run.attempt.followers, Pulse(run.plan)

    def on_step(step: int, tokens: int) -> None:
        if tokens:
            pulse.saw(step, tokens)
        if reporter.due() or not tokens or step == run.plan.total_steps:
            reporter.update(progress=pulse.progress(step), loss=run.metrics.curves(), trackers=followers.tracked)
        if world.is_first:
            followers.log(run.metrics.lines)

    trainer = build_trainer(
        run.job,
        run.model,
        run.train,
        run.validation,
        fit=run.fit,
        packed=run.padded is None,
        around=Surroundings(Origin(run.learnt, run.base), run.metrics, interruption, on_step, world),
    )
    reporter.update(phase="Running", progress=pulse.progress(_saved_step(run)))
    followers.follow(trainer.args, run.model)
    try:
        with interruption.deferred():
            trainer.run(measure_end=True)
        if world.is_first:
            followers.catch_up(run.metrics.lines)
    finally:
        reached = max(trainer.state.global_step, _saved_step(run))
        reporter.update(progress=pulse.progress(reached))
    interruption.check()
    followers.trained()
    told = {"loss": run.metrics.curves(), "trackers": followers.tracked}
    reporter.update(progress=pulse.progress(run.plan.total_steps), **told)
    tokens = run.model.get_input_embeddings().num_embeddings
    diverged.require_sense(run.metrics.lines, tokens)
    diverged.require_sound_end(run.metrics.lines, tokens, trainer.loss_at_end)
    return trainer


def _saved_step(run: Run) -> int:
    """Where this attempt goes on, by the newest checkpoint; 0 at the start."""
    return min(run.attempt.reporter.saved_step() or 0, run.plan.total_steps)


def _result(run: Run, trainer: "StepTrainer") -> TrainingResult:
    curves, tokens = run.metrics.curves(), run.model.get_input_embeddings().num_embeddings
    return TrainingResult(
        artifact=ArtifactRef(),
        steps=run.plan.total_steps,
        tokens=run.metrics.tokens,
        train_loss=curves.last_train,
        eval_loss=curves.last_validation,
        **curves.last_rewards,
        runtime_seconds=round(trainer.seconds),
        dataset_sha256=run.verdict.train.sha256 if run.verdict.train else None,
        warnings=diverged.warnings(run.job.spec, run.metrics.lines, tokens, trainer.loss_at_end),
    )


def _with(result: TrainingResult, warnings: list[str] | None) -> TrainingResult:
    """The result with these warnings, unless there are some that say more."""
    return result if result.warnings else result.model_copy(update={"warnings": warnings})


def _merge(run: Run) -> list[str] | None:
    """Make one model of base and adapter, where the job asks for it and there is an adapter; what to say of it."""
    from finetune_trainer.training.passes import padded

    if not run.job.spec.artifact.merge or not hasattr(run.model, "peft_config"):
        return None
    texts = run.train if isinstance(run.train, TokenStore) else run.train.documents
    shortest = texts.lengths.argsort(kind="stable")[:4]  # nothing is left here of what a pass may hold
    sample = padded(texts, shortest.tolist())
    run.model, warnings = merge.merged(run.job, run.folder, run.model, sample)
    return warnings


def _evaluate(run: Run) -> tuple[Contest | None, Failure | None]:
    """The tuned model beside its baselines on dataset.test, or why it cannot be asked; nothing where there is none."""
    if run.job.spec.method == "Full" and run.job.spec.code is None:
        run.model.to(run.compute_dtype)  # measured as it is saved
    if run.asked is None or run.test is None:
        return None, None
    tuned = Tuned(
        job=run.job,
        folder=run.folder,
        model=run.answering,
        compute_dtype=run.compute_dtype,
        token_budget=run.fit.token_budget,
    )
    measuring = Measuring(
        tuned,
        asked=run.asked,
        test=run.test,
        learnt=run.learnt,
        reporter=run.attempt.reporter,
        interruption=run.attempt.interruption,
    )
    try:
        if run.shards > 1:  # before its training it could not be asked
            require_answers(run.folder, run.answering)
        contest = measuring.measure()
    except TrainerError as error:
        if error.reason not in {Reason.OUT_OF_MEMORY, Reason.MODEL_UNUSABLE}:
            raise
        logger.warning("The tuned model is not evaluated: %s", error.message)
        return None, error.failure(attempt=run.job.attempt)
    run.attempt.reporter.update(evaluation=contest.result)
    return contest, None


def _page(run: Run, result: TrainingResult, contest: Contest | None, curves: str) -> str:
    hyper = run.job.spec.hyperparameters
    settings = {
        "base model": run.job.spec.base_model,
        "method": run.job.spec.method,
        **({"preference": str(run.job.spec.preference)} if run.job.spec.preference else {}),
        "epochs": f"{hyper.epochs:g}",
        "learning rate": f"{learning_rate_of(run.job.spec):g}",
        "rows per step": hyper.batch_size,
        **(
            {"own code": "may have done otherwise than the job says"}
            if run.job.spec.code
            else {"rows per pass": "packed" if run.padded is None else f"padded: {run.padded}"}
        ),
        "steps": run.plan.total_steps,
        "seed": hyper.seed,
    }
    return page(
        run.job,
        dataset=run.verdict,
        warnings=result.warnings or (),
        audited=run.audited,
        curves=curves,
        contest=contest,
        settings=settings,
    )
