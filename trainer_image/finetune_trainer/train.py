"""`finetune-trainer train`: what the training pod runs. `execute` is the whole recipe, top to bottom, also for `run`.

    finished before? → find the model → check the data → load → tokenise → train → measure → write the artifact
                                                         └── or the user's own code ──┘

The job comes from the environment; progress and the result are sent as reports. Each step is implemented in the module
it is named after.
"""

import argparse
import logging
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune_api.job_status import EXPERTS_LEFT, ArtifactRef, Failure, TrainingResult
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
from finetune_trainer.models.adapters import beside_experts
from finetune_trainer.models.base_probe import Probe, probe
from finetune_trainer.models.validation import config_file
from finetune_trainer.output import artifact, loss_plot, merge, pushes
from finetune_trainer.output.finished import data_hashes, fingerprint, was_finished, with_pushes
from finetune_trainer.output.keeping import OutputFolder, output_of_other_rank, output_of_rank_0
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
    TrainedModel,
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
    reporter, interruption = pod_reporter(launch.job_for_reporter(job), launch.message_path()), Interruption()
    return outcome.run_to_end(lambda: execute(job, reporter, interruption), reporter, interruption)


def execute(job: TrainerJob, reporter: Reporter, interruption: Interruption, *, allow_local: bool = False) -> None:
    """Run the job: afterwards rank 0's report says Succeeded and the artifact is complete.

    `allow_local` permits datasets that are files of this machine.

    Raises:
        TrainerError: a problem that the user can fix.
        Interrupted: a stop was requested; the newest checkpoint is complete.
    """
    if job.spec.code is None:  # own code may run on other devices
        gpus.require()
    torch_settings.prepare(max(1, cpu_threads() // job.ranks_per_node))
    world = join(job.ranks_per_node)
    with output_of_rank_0(job) if world.is_first else output_of_other_rank(job, world.rank) as output:
        reporter.saved_step = output.saved_step
        found = trackers.Trackers(output.job)
        _execute(output, Attempt(output.job, reporter, interruption, world, found, allow_local=allow_local))


def _execute(output: OutputFolder, attempt: Attempt) -> None:
    job, world, interruption = attempt.job, attempt.world, attempt.interruption
    if world.is_first:  # before anything else: writes of an earlier attempt must not land after ours
        with write_errors(Path(job.output)):
            interruption.stop_when_superseded(output.fence)
    if world.broadcast("finished", lambda: _was_finished(attempt)):
        return
    attempt = replace(attempt, moment=moment.of_run(Path(job.output), world))
    trackers.require(job)
    pushes.require_keys(job.spec.artifact.push)
    attempt.report_trackers()  # before the model is loaded: a missing tracker can still stop the run cheaply
    with attempt.trackers_informed():
        folder, verdict = _model_and_data(attempt)
        train = _train_by_own_code if job.spec.code else _train_by_recipe
        run, result = train(attempt, folder, verdict)
        if world.is_first:
            _finish(run, result, output)


def _model_and_data(attempt: Attempt) -> tuple[Path, DatasetVerdict]:
    """The base model's folder, and the verdict on data that passed the check."""
    job, world = attempt.job, attempt.world
    folder = base_place.locate(job)
    config_file.require_for(job.spec, folder)
    if job.spec.method != "QLoRA":
        four_bit.block_import(folder)
    base_alike.require(world, folder)
    checked = world.broadcast("data", lambda: _checked_data(attempt, folder).wire())
    attempt.interruption.check()  # Python drops exceptions raised in destructors: a signal may have been missed
    return folder, DatasetVerdict.model_validate(checked)


def _was_finished(attempt: Attempt) -> bool:
    """Whether an earlier attempt wrote the artifact. If it was killed right after, its intermediate files remain."""
    found = was_finished(attempt.job, attempt.reporter, allow_local=attempt.allow_local)
    if found:
        attempt.interruption.ignore_from_now_on()  # the result is final: complete the clean-up
        attempt.end_trackers("Finished")
        _delete_intermediate_files(attempt.job)
    return found


def _finish(run: "Run", result: TrainingResult, output: OutputFolder) -> None:
    """Evaluate, merge, write the artifact and report it."""
    job, interruption = run.job, run.attempt.interruption
    contest, failure = _evaluate(run)
    result = result.model_copy(update={"evaluation_failure": failure})
    interruption.check()
    result = _with_warnings(result, _merge(run))
    interruption.check()
    interruption.before_writing()
    reference = output.publish(_write_artifact(run, result, contest))
    run.attempt.end_trackers("Finished")
    _delete_intermediate_files(job)
    result = result.model_copy(update={"artifact": reference})
    run.attempt.reporter.update(phase="Succeeded", result=with_pushes(job, result))


def _delete_intermediate_files(job: TrainerJob) -> None:
    """Delete the intermediate files.

    Not while a platform has yet to pick up the artifact: if it is lost, the next attempt makes it again from these
    files without repeating any work.
    """
    if not job.artifact_folder:
        kept = (CHECKPOINTS_FOLDER, ANSWERS, own_code.MODEL_FOLDER, mlflow_run.RUNS_FOLDER, trackers.TENSORBOARD_FOLDER)
        for rest in kept:
            shutil.rmtree(Path(job.output) / rest, ignore_errors=True)
        moment.forget(Path(job.output))
        code_before.forget(Path(job.output))


def _write_artifact(run: "Run", result: TrainingResult, contest: Contest | None) -> ArtifactRef:
    spec, found = run.job.spec, contest.result if contest else None
    curves = loss_plot.draw(run.metrics, title=f"{spec.model_ref.name} · {spec.base_model} · {spec.method}")
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
    """Everything a run works with once its data has passed the check."""

    attempt: Attempt
    folder: Path
    """The base model's."""
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
    """Probe of the base model, if an adapter on it is trained."""
    metrics: Metrics
    """Rank 0's is the record of the run; the other ranks' are discarded with their pods."""
    test: TokenStore | None
    material: Material | None
    """The test set, if the job has one."""
    padded: str | None
    """Why rows are padded instead of packed; None if they are packed."""
    audited: list[Audited]
    """A few training rows with the tokens that carry loss."""
    shards: int
    """Number of ranks that the model was sharded over during training."""
    code_sha256: str | None = None
    """SHA-256 of the job's own code, as it was at its start."""

    @property
    def job(self) -> TrainerJob:
        """The job of the attempt."""
        return self.attempt.job

    @property
    def answering(self) -> Model:
        """The model in its current state, with its tokenizers."""
        return Model(self.model, self.tokenizer, self.chat)

    @property
    def trained_on(self) -> str:
        """Hash of the spec and the data that the model is trained on."""
        return fingerprint(self.job, *data_hashes(self.verdict))


def _checked_data(attempt: Attempt, folder: Path) -> DatasetVerdict:
    """Check the data and report the verdict, so that no model is loaded for unusable data."""
    job, chat = attempt.job, ChatTokenizer.from_folder(folder, moment=attempt.moment)
    verdict = check_dataset(job.spec, tokenizer=chat, allow_local=attempt.allow_local, air_gapped=job.air_gapped)
    attempt.reporter.update(dataset=verdict)
    require_valid(verdict)
    return verdict


def _train_by_recipe(attempt: Attempt, folder: Path, verdict: DatasetVerdict) -> tuple[Run, TrainingResult]:
    """The built-in recipe. Everything slow that needs no other rank runs before the ranks meet."""
    garbage.import_and_freeze("finetune_trainer.training.step_trainer", "peft", "matplotlib.figure")
    base_model.quiet_libraries()
    job, world, reporter = attempt.job, attempt.world, attempt.reporter
    width = compute_dtype_of(job).itemsize
    shards = world.broadcast(
        "shards", lambda: memory_fit.require(job.spec, folder, verdict, reporter, compute_bytes=width, ranks=world.size)
    )
    trained = TrainedModel.of(job, folder, world, shards)
    run = _prepare(attempt, folder, verdict, trained.model, shards=shards)
    if shards == 1:  # a sharded model has no weights yet
        require_works(job, folder, run.model, run.chat.decoder_start)
        if run.material is not None:
            require_answers(folder, run.answering)
        run.padded = why_padded(job, run.model)
    attempt.interruption.check()
    with world.connected():
        if shards > 1:
            trained.shard(run.compute_dtype)
            require_works(job, folder, run.model, run.chat.decoder_start)  # collective, the same on every rank
            padded = why_padded(job, run.model)
            run.padded = world.broadcast("padded", lambda: padded)
        logger.info("rows are %s", "packed" if run.padded is None else f"padded, not packed: {run.padded}")
        trainer = _train(run)
        memory_fit.report_peak(reporter, trainer.lesson.halvings)
        result = _result(run, trainer)
        run.model = trained.unsharded(trainer, run.compute_dtype)
    if world.is_first and job.spec.method == "Full":
        result = _with_warnings(result, rounded.little_kept(folder, run.model, run.compute_dtype))
    return run, result


def _train_by_own_code(attempt: Attempt, folder: Path, verdict: DatasetVerdict) -> tuple[Run, TrainingResult]:
    """The user's code; no model is loaded here until it has ended. It has the pod to itself: there are no ranks."""
    job = attempt.job
    own_model.require_base(job, folder)
    if job.spec.artifact.merge:
        base_refusals.require_plain_weights(folder)
    result, code = own_code.train(attempt, folder, verdict, trained_on=fingerprint(job, *data_hashes(verdict)))
    base_model.quiet_libraries()
    left = Path(job.output) / own_code.MODEL_FOLDER
    model = own_model.load(job, folder, left, compute_dtype_of(job))
    result = _with_warnings(result, unchanged.nothing_learnt(folder, left, model))
    result = _with_warnings(result, left_tokenizer.left_out(folder, left))
    own_code.record_valid_model(job, code, result)
    run = _prepare(attempt, folder, verdict, model.to(device()))
    run.code_sha256 = code.sha256
    attempt.interruption.check()
    return run, result


def _prepare(attempt: Attempt, folder: Path, verdict: DatasetVerdict, model: Any, *, shards: int = 1) -> Run:
    """Tokenise the data, check that model and data fit together, and collect everything for the run."""
    job, world = attempt.job, attempt.world
    chat = ChatTokenizer.from_folder(folder, moment=attempt.moment)
    data = Tokenised(job, chat, verdict, world, allow_local=attempt.allow_local)
    train, validation = data.texts("train"), data.texts("validation")
    test = data.answers("test") if world.is_first else None  # only rank 0 evaluates
    material = prepare(job, chat, verdict, allow_local=attempt.allow_local) if world.is_first else None
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
        material=material,
        audited=data.audited(),
        shards=shards,
    )


def _train(run: Run) -> "StepTrainer":
    """Train to the end, from the newest checkpoint or from the start.

    Raises:
        Interrupted: a stop was requested; a checkpoint of the last complete step was written.
    """
    reporter, interruption, world = run.attempt.reporter, run.attempt.interruption, run.attempt.world
    job_trackers, pulse = run.attempt.trackers, Pulse(run.plan)

    def on_step(step: int, tokens: int) -> None:
        if tokens:
            pulse.saw(step, tokens)
        if reporter.due() or not tokens or step == run.plan.total_steps:
            reporter.update(progress=pulse.progress(step), loss=run.metrics.curves(), trackers=job_trackers.tracked)
        if world.is_first:
            job_trackers.log(run.metrics.lines)

    trainer = build_trainer(
        run.job,
        run.model,
        run.train,
        run.validation,
        fit=run.fit,
        packed=run.padded is None,
        around=Surroundings(Origin(run.trained_on, run.base), run.metrics, interruption, on_step, world),
    )
    reporter.update(phase="Running", progress=pulse.progress(_saved_step(run)))
    job_trackers.follow(trainer.args, run.model)
    try:
        with interruption.deferred():
            trainer.run(measure_end=True)
        if world.is_first:
            job_trackers.catch_up(run.metrics.lines)
    finally:
        reached = max(trainer.state.global_step, _saved_step(run))
        reporter.update(progress=pulse.progress(reached))
    interruption.check()
    job_trackers.trained()
    progress = pulse.progress(run.plan.total_steps)
    reporter.update(progress=progress, loss=run.metrics.curves(), trackers=job_trackers.tracked)
    tokens = run.model.get_input_embeddings().num_embeddings
    diverged.require_sense(run.metrics.lines, tokens)
    diverged.require_sound_end(run.metrics.lines, tokens, trainer.loss_at_end)
    return trainer


def _saved_step(run: Run) -> int:
    """The step this attempt resumes from, by the newest checkpoint; 0 without one."""
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
        warnings=[
            *(diverged.warnings(run.job.spec, run.metrics.lines, tokens, trainer.loss_at_end) or ()),
            *beside_experts(run.model),
        ]
        or None,
    )


def _with_warnings(result: TrainingResult, warnings: list[str] | None) -> TrainingResult:
    """The result with these warnings, unless it already has others that say more than which experts were left out."""
    existing = result.warnings or []
    if not warnings or not all(text.startswith(EXPERTS_LEFT) for text in existing):
        return result
    return result.model_copy(update={"warnings": [*warnings, *existing]})


def _merge(run: Run) -> list[str] | None:
    """Merge the adapter into the base model if the job asks for it and there is an adapter; returns warnings."""
    from finetune_trainer.training.passes import padded

    if not run.job.spec.artifact.merge or not hasattr(run.model, "peft_config"):
        return None
    texts = run.train if isinstance(run.train, TokenStore) else run.train.documents
    shortest = texts.lengths.argsort(kind="stable")[:4]  # the memory of a pass is unknown by now
    sample = padded(texts, shortest.tolist())
    run.model, warnings = merge.merged(run.job, run.folder, run.model, sample)
    return warnings


def _evaluate(run: Run) -> tuple[Contest | None, Failure | None]:
    """Compare the tuned model with its baselines on dataset.test, or say why not; (None, None) without a test set."""
    if run.job.spec.method == "Full" and run.job.spec.code is None:
        run.model.to(run.compute_dtype)  # evaluate it in the dtype it is saved in
    if run.material is None or run.test is None:
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
        material=run.material,
        test=run.test,
        trained_on=run.trained_on,
        reporter=run.attempt.reporter,
        interruption=run.attempt.interruption,
    )
    try:
        if run.shards > 1:  # a sharded model could not generate before training
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
