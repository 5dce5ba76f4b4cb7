"""`finetune-trainer train`: what the pod runs. `execute` is the whole recipe, top to bottom; `run` calls it too.

    finished before? → find the model → check the data → load → tokenise → train → measure → write the artifact
                                                         └── or the user's own code ──┘

The job comes from the environment; how it goes leaves by the report. Each step's how is in the file it is named after.
"""

import argparse
import hashlib
import json
import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune_api.job_status import ArtifactRef, TrainingResult
from finetune_api.reasons import Reason
from finetune_api.trainer import TrainerJob
from finetune_api.uris import LOCAL_SCHEME
from finetune_api.verdict import SPLITS, DatasetVerdict
from finetune_trainer import (
    artifact,
    base_model,
    four_bit,
    launch,
    memory,
    merge,
    outcome,
    own_code,
    own_model,
    room,
    trackers,
)
from finetune_trainer.batches import Plan
from finetune_trainer.data import ChatTokenizer
from finetune_trainer.data.audit import Audited
from finetune_trainer.data.read import dataset_uri
from finetune_trainer.data.verdict import check_dataset, require_valid
from finetune_trainer.durable import sha256_of, write_errors
from finetune_trainer.errors import TrainerError
from finetune_trainer.evaluation.contest import Contest
from finetune_trainer.evaluation.kept import forget
from finetune_trainer.evaluation.material import Material, prepare
from finetune_trainer.evaluation.measuring import Measuring
from finetune_trainer.evaluation.models import Model, Tuned
from finetune_trainer.evaluation.page import page
from finetune_trainer.given import job_given
from finetune_trainer.interruption import Interruption
from finetune_trainer.keeping import Keeping, followed, kept
from finetune_trainer.metrics import FILE, Metrics
from finetune_trainer.progress import Pulse
from finetune_trainer.push import push_all
from finetune_trainer.ranks import World, join
from finetune_trainer.report import Reporter, pod_reporter
from finetune_trainer.serving.limits import cpu_threads
from finetune_trainer.token_store import TokenStore
from finetune_trainer.tokenised import Tokenised
from finetune_trainer.tuning import (
    Held,
    build_trainer,
    checkpoints_of,
    compute_dtype_of,
    device,
    fit_of,
    learning_rate_of,
    plan_of,
    why_padded,
)

if TYPE_CHECKING:
    from finetune_trainer.step_trainer import StepTrainer
    from finetune_trainer.steps import Store

# What may differ between two attempts of the same job without changing what is learnt.
_NOT_LEARNT_FROM: dict[str, Any] = {
    "suspend": True,
    "ttl_seconds_after_finished": True,
    "retry_nonce": True,
    "resources": True,
    "active_deadline_seconds": True,
    "trackers": True,
    "artifact": {"push"},
}

_ANOTHER_OUTPUT = "Choose another output folder, or delete that one."

logger = logging.getLogger(__name__)


def main(args: argparse.Namespace) -> int:  # noqa: ARG001 - it has no flags
    """Do the job that FINETUNE_JOB describes."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        job = job_given(TrainerJob, "By hand: finetune-trainer run -f job.yaml --output tuned.")
    except TrainerError as error:
        return int(outcome.complain(error))
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
    _prepare_environment(job)
    world = join(job.ranks_per_node)
    with kept(job) if world.is_first else followed(job, world.rank) as keeping:
        _execute(keeping, world, reporter, interruption, allow_local=allow_local)


def _execute(
    keeping: Keeping, world: World, reporter: Reporter, interruption: Interruption, *, allow_local: bool
) -> None:
    job = keeping.job
    if world.tell("finished", lambda: _was_finished(job, reporter, allow_local=allow_local)):
        return
    trackers.require(job)
    if world.is_first:
        with write_errors(Path(job.output)):
            interruption.stop_when_passed(keeping.fence)
    folder = base_model.locate(job)
    if job.spec.method != "QLoRA":
        four_bit.leave_out(folder)
    told = world.tell("data", lambda: _checked_data(job, folder, reporter, allow_local=allow_local).wire())
    verdict = DatasetVerdict.model_validate(told)
    interruption.check()  # a signal may have come where Python passes its exception over, such as in a destructor
    train = _train_by_own_code if job.spec.code else _train_by_recipe
    run, result = train(job, folder, verdict, reporter, interruption, world=world, allow_local=allow_local)
    if not world.is_first:
        return
    contest = _evaluate(run, reporter, interruption)
    interruption.check()
    _merge(run)
    interruption.check()
    interruption.before_writing()
    curves = artifact.loss_svg(run.metrics, job)
    reference = artifact.write(
        job,
        fingerprint=fingerprint(job),
        model=run.model,
        tokenizer=run.tokenizer,
        chat=run.chat,
        record=run.metrics,
        dataset=verdict,
        result=result,
        contest=contest,
        curves=curves,
        page=_page(run, contest, curves),
    )
    reference = keeping.publish(reference)
    for rest in (own_code.MODEL_FOLDER, trackers.RUNS_FOLDER, trackers.TENSORBOARD_FOLDER):
        shutil.rmtree(Path(job.output) / rest, ignore_errors=True)
    if not job.artifact_folder:  # one that a platform has yet to take may be lost: then the checkpoints make it again
        shutil.rmtree(checkpoints_of(job), ignore_errors=True)
    forget(Path(job.output))
    result = result.model_copy(update={"artifact": reference})
    reporter.update(phase="Succeeded", result=_with_pushes(job, result))


def _with_pushes(job: TrainerJob, result: TrainingResult) -> TrainingResult:
    """The result with what became of the job's pushes, which are made here: the artifact is whole by now."""
    return result.model_copy(update={"pushes": push_all(job.spec.artifact.push, artifact.folder_of(job)) or None})


def fingerprint(job: TrainerJob, *data: str | None) -> str:
    """What a run learns from, as SHA-256: the spec without what only says how it is run, and hashes of the data.

    Fields that have their default do not count: a release that knows one more must know its predecessor's checkpoints.
    """
    spec = job.spec.model_dump(mode="json", exclude=_NOT_LEARNT_FROM, exclude_defaults=True)
    return hashlib.sha256(json.dumps([spec, data], sort_keys=True).encode()).hexdigest()


@dataclass
class Run:
    """All that a run works with once its data is known to be good."""

    job: TrainerJob
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
    world: World
    metrics: Metrics
    """Rank 0's is the run's record; the others' go with their pods."""
    test: TokenStore | None
    asked: Material | None
    """The test set, where the job has one."""
    padded: str | None
    """Why rows are not packed; None where they are."""
    audited: list[Audited]
    """A few rows of the training set, with the tokens that carry loss."""


def _was_finished(job: TrainerJob, reporter: Reporter, *, allow_local: bool) -> bool:
    """Whether an earlier attempt wrote the artifact; then its result is reported and nothing is done again."""
    done = artifact.finished(job)
    if done is None:
        return False
    if done.fingerprint != fingerprint(job):
        raise TrainerError(
            Reason.SPEC_INVALID,
            f"{artifact.folder_of(job)} holds the result of another spec",
            _ANOTHER_OUTPUT,
        )
    if allow_local:  # here the next run may be on rows that were edited; a job of a cluster never learns twice
        _require_same_files(job, done.dataset)
    reporter.update(dataset=done.dataset, evaluation=done.evaluation, loss=done.curves)
    reporter.update(phase="Succeeded", result=_with_pushes(job, done.result))
    return True


def _require_same_files(job: TrainerJob, learnt_from: DatasetVerdict) -> None:
    for split in SPLITS:
        data, known = getattr(job.spec.dataset, split), getattr(learnt_from, split)
        uri = dataset_uri(data, split, allow_local=True) if data else None
        path = Path(uri.mounted_path() or "") if uri and uri.scheme == LOCAL_SCHEME else None
        if known and path and path.is_file() and sha256_of(path) != known.sha256:
            raise TrainerError(
                Reason.SPEC_INVALID,
                f"{artifact.folder_of(job)} holds the result of other data: {path.name} has changed since",
                _ANOTHER_OUTPUT,
            )


def _prepare_environment(job: TrainerJob) -> None:
    """Settings that torch reads when it is imported: threads as the CPU quota allows, none of them spinning idly.

    Threads that spin while they wait burn the quota and starve whatever else runs on the node.
    """
    os.environ["OMP_NUM_THREADS"] = str(max(1, cpu_threads() // job.ranks_per_node))
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")


def _checked_data(job: TrainerJob, folder: Path, reporter: Reporter, *, allow_local: bool) -> DatasetVerdict:
    """The verdict on the data, reported; no model is loaded for data that cannot be used."""
    chat = ChatTokenizer.from_folder(folder)
    verdict = check_dataset(job.spec, tokenizer=chat, allow_local=allow_local, air_gapped=job.air_gapped)
    reporter.update(dataset=verdict)
    require_valid(verdict)
    return verdict


def _train_by_recipe(
    job: TrainerJob,
    folder: Path,
    verdict: DatasetVerdict,
    reporter: Reporter,
    interruption: Interruption,
    *,
    world: World,
    allow_local: bool,
) -> tuple[Run, TrainingResult]:
    """The built-in recipe. All that takes long and asks nobody comes before the ranks meet."""
    base_model.quiet_libraries()
    width = compute_dtype_of(job).itemsize
    shards = world.tell(
        "shards", lambda: room.require(job.spec, folder, verdict, reporter, compute_bytes=width, ranks=world.size)
    )
    held = Held.of(job, folder, world, shards)
    run = _prepare(job, folder, verdict, held.model, world, shards=shards, allow_local=allow_local)
    run.padded = why_padded(job, run.model) if shards == 1 else None
    interruption.check()
    with world.formed():
        if shards > 1:
            held.spread(run.compute_dtype)
            padded = why_padded(job, run.model)  # every rank computes in it
            run.padded = world.tell("padded", lambda: padded)
        logger.info("rows are %s", "packed" if run.padded is None else f"padded, not packed: {run.padded}")
        trainer = _train(run, reporter, interruption)
        room.report_peak(reporter, trainer.lesson.halvings)
        result = _result(run, trainer)
        run.model = held.released(trainer, run.compute_dtype)
    return run, result


def _train_by_own_code(
    job: TrainerJob,
    folder: Path,
    verdict: DatasetVerdict,
    reporter: Reporter,
    interruption: Interruption,
    *,
    world: World,
    allow_local: bool,
) -> tuple[Run, TrainingResult]:
    """The user's code; no model is loaded here before it has ended. It has its pod to itself: there are no ranks."""
    result = own_code.train(
        job, folder, verdict, reporter, interruption, allow_local=allow_local, air_gapped=job.air_gapped
    )
    base_model.quiet_libraries()
    model = own_model.load(job, folder, Path(job.output) / own_code.MODEL_FOLDER, compute_dtype_of(job))
    run = _prepare(job, folder, verdict, model.to(device()), world, allow_local=allow_local)
    interruption.check()
    return run, result


def _prepare(
    job: TrainerJob,
    folder: Path,
    verdict: DatasetVerdict,
    model: Any,
    world: World,
    *,
    shards: int = 1,
    allow_local: bool,
) -> Run:
    """Tokenise the data, and decide how model and data go together."""
    chat = ChatTokenizer.from_folder(folder)
    data = Tokenised(job, chat, verdict, world, allow_local=allow_local)
    train, validation = data.learnt("train"), data.learnt("validation")
    test = data.answers("test") if world.is_first else None  # the others do not measure
    asked = prepare(job, chat, verdict, allow_local=allow_local)
    assert train is not None  # noqa: S101 - dataset.train is required
    base_model.require_tokens(model, folder, max(store.largest_id for store in (train, validation, test) if store))
    return Run(
        job=job,
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
        world=world,
        metrics=Metrics((Path(job.output) if world.is_first else launch.scratch()) / FILE),
        test=test,
        asked=asked,
        audited=data.audited(),
    )


def _train(run: Run, reporter: Reporter, interruption: Interruption) -> "StepTrainer":
    """Train from the newest checkpoint or the start to the end.

    Raises:
        Interrupted: somebody asked to stop; a checkpoint of the last whole step was written.
    """
    pulse = Pulse(run.plan)

    def on_step(step: int, tokens: int) -> None:
        if tokens:
            pulse.saw(step, tokens)
        if reporter.due() or not tokens or step == run.plan.total_steps:
            reporter.update(progress=pulse.progress(step), loss=run.metrics.curves(), trackers=followers.tracked)
        if run.world.is_first:
            followers.log(run.metrics.lines[-1])

    trainer = build_trainer(
        run.job,
        run.model,
        run.train,
        run.validation,
        fit=run.fit,
        packed=run.padded is None,
        fingerprint=fingerprint(run.job, *_data_hashes(run.verdict)),
        metrics=run.metrics,
        world=run.world,
        interruption=interruption,
        on_step=on_step,
    )
    reporter.update(phase="Running", progress=pulse.progress(0))
    followers = trackers.Trackers(run.job, trainer.args, run.model)
    try:
        with interruption.deferred():
            trainer.run()
    finally:
        followers.end()
        reporter.update(trackers=followers.tracked)
    interruption.check()
    reporter.update(progress=pulse.progress(run.plan.total_steps), loss=run.metrics.curves())
    return trainer


def _data_hashes(verdict: DatasetVerdict) -> list[str | None]:
    return [split.sha256 for split in (verdict.train, verdict.validation) if split]


def _result(run: Run, trainer: "StepTrainer") -> TrainingResult:
    curves = run.metrics.curves()
    return TrainingResult(
        artifact=ArtifactRef(),
        steps=run.plan.total_steps,
        tokens=run.metrics.tokens,
        train_loss=curves.last_train,
        eval_loss=curves.last_validation,
        **curves.last_rewards,
        runtime_seconds=round(trainer.seconds),
        dataset_sha256=run.verdict.train.sha256 if run.verdict.train else None,
    )


def _merge(run: Run) -> None:
    """Make one model of base and adapter, where the job asks for it and there is an adapter."""
    from finetune_trainer.passes import padded

    if run.job.spec.artifact.merge and hasattr(run.model, "peft_config"):
        texts = run.train if isinstance(run.train, TokenStore) else run.train.documents
        sample = padded(texts, list(range(min(4, len(texts)))))
        run.model = merge.merged(run.job, run.folder, run.model, sample)


def _evaluate(run: Run, reporter: Reporter, interruption: Interruption) -> Contest | None:
    """The tuned model beside its baselines on dataset.test; nothing where the job has none."""
    if run.job.spec.method == "Full" and run.job.spec.code is None:
        run.model.to(run.compute_dtype)  # measured as it is saved
    if run.asked is None or run.test is None:
        return None
    tuned = Tuned(
        job=run.job,
        folder=run.folder,
        model=Model(run.model, run.tokenizer, run.chat),
        compute_dtype=run.compute_dtype,
        token_budget=run.fit.token_budget,
    )
    measuring = Measuring(
        tuned,
        asked=run.asked,
        test=run.test,
        learnt=fingerprint(run.job, *_data_hashes(run.verdict)),
        reporter=reporter,
        interruption=interruption,
    )
    contest = measuring.measure()
    reporter.update(evaluation=contest.result)
    return contest


def _page(run: Run, contest: Contest | None, curves: str) -> str:
    hyper = run.job.spec.hyperparameters
    settings = {
        "base model": run.job.spec.base_model,
        "method": run.job.spec.method,
        **({"preference": str(run.job.spec.preference)} if run.job.spec.preference else {}),
        "epochs": f"{hyper.epochs:g}",
        "learning rate": f"{learning_rate_of(run.job.spec):g}",
        "rows per step": hyper.batch_size,
        "rows of a pass": "packed" if run.padded is None else f"padded: {run.padded}",
        "steps": run.plan.total_steps,
        "seed": hyper.seed,
    }
    return page(
        run.job,
        dataset=run.verdict,
        audited=run.audited,
        curves=curves,
        contest=contest,
        settings=settings,
    )
