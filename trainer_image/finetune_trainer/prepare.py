"""`finetune-trainer prepare`: the pod that prepares the data of a job at a provider outside of the cluster.

check the data → the provider's rules → may answers be kept? → convert → estimate → budget? → upload the files → report
Nothing leaves the pod before every check has passed. Needs no torch; the pod has no provider credentials.
"""

import argparse
import tempfile
from pathlib import Path

from finetune_api.catalogue import Price, estimate, exceeds
from finetune_api.job import FineTuneJobSpec
from finetune_api.names import SCRATCH_PATH
from finetune_api.reasons import Reason
from finetune_api.trainer import Checked, EvaluationSize, PrepareJob
from finetune_api.uris import parse_uri
from finetune_api.verdict import DatasetVerdict, SplitVerdict
from finetune_trainer.attempt import outcome, pod_log
from finetune_trainer.attempt.interruption import Interruption
from finetune_trainer.attempt.report import Reporter, pod_reporter
from finetune_trainer.attempt.upload import upload
from finetune_trainer.data.provider.file import ConvertedFile, convert
from finetune_trainer.data.provider.rules import NAMES, ProviderRules, require_rows, rules_for
from finetune_trainer.data.provider.token_estimate import tokens_of
from finetune_trainer.data.read import load_rows
from finetune_trainer.data.verdict import MOST_WARNINGS, check_dataset, require_valid
from finetune_trainer.errors import TrainerError
from finetune_trainer.job import code_files
from finetune_trainer.job.given import job_given, no_job
from finetune_trainer.storage.durable import require_writable

BY_HAND = "By hand: finetune-trainer check -f job.yaml --provider openAI, or another provider."


def main(args: argparse.Namespace) -> int:  # noqa: ARG001 - it has no flags
    """Prepare the job that FINETUNE_JOB describes."""
    pod_log.begin()
    try:
        job = _job()
    except TrainerError as error:
        return outcome.complain(error)
    reporter, interruption = pod_reporter(job), Interruption()
    with tempfile.TemporaryDirectory(dir=SCRATCH_PATH) as scratch:
        return outcome.run_to_end(lambda: prepare(job, reporter, Path(scratch)), reporter, interruption)


def _job() -> PrepareJob:
    job = job_given(PrepareJob, BY_HAND)
    if job.rules not in NAMES:
        raise no_job("rules", BY_HAND)
    return job


def prepare(job: PrepareJob, reporter: Reporter, scratch: Path) -> None:
    """Check, convert and upload the data; afterwards the report says Checked, and the provider has the files.

    Raises:
        TrainerError: a problem with the job or the provider's account that the user can fix.
    """
    rules = rules_for(job.rules, job.spec)
    verdict = check_dataset(job.spec, tokenizer=None, no_tokens=f"{rules.title} counts them")
    reporter.update(dataset=verdict)
    require_valid(verdict)
    require_rows(rules, verdict)
    require_place_for_answers(job.spec)
    files = convert_all(job.spec, verdict, rules, scratch)
    reporter.update(dataset=warned(verdict, files))
    tokens = next(file.tokens for file in files if file.split == "train")
    if rules.billed_by_tokens:
        require_budget(job.spec, tokens, job.price)
    size = evaluation_size(job.spec, verdict) if rules.billed_by_tokens else None
    if job.spec.code is not None:
        files = [*files, code_files.pack(job.spec, scratch)]
    sent = [upload(job, file) for file in files]
    reporter.update(phase="Checked", checked=Checked(files=sent, tokens=tokens, evaluation=size))


def require_place_for_answers(spec: FineTuneJobSpec) -> None:
    """Check that the evaluation will be able to write to its output, before the tuning is paid for.

    Raises:
        TrainerError: ArtifactFailed, or StoreUnavailable.
    """
    output = spec.evaluation.output if spec.dataset.test else None
    if output is None:
        return
    folder = parse_uri(output.uri).mounted_path()
    assert folder is not None  # noqa: S101 - the CRD allows only claims
    try:
        require_writable(Path(folder))
    except TrainerError as error:
        raise TrainerError(error.reason, f"spec.evaluation.output.uri: {error.message}", error.next_step) from error


def convert_all(
    spec: FineTuneJobSpec, verdict: DatasetVerdict, rules: ProviderRules, scratch: Path, *, allow_local: bool = False
) -> list[ConvertedFile]:
    """The splits that the provider gets, as files.

    Raises:
        TrainerError: a file is too large, has changed since it was checked, or does not fit into the scratch folder.
    """
    found: list[ConvertedFile] = []
    for split in rules.splits:
        checked: SplitVerdict | None = getattr(verdict, split)
        if checked is None:
            continue
        rows = load_rows(spec.data, split, allow_local=allow_local, expected_sha256=checked.sha256)
        try:
            found.append(convert(rows, split, checked.file, rules, scratch))
        except OSError as error:
            message = f"{checked.file} cannot be converted in {SCRATCH_PATH}: {error.strerror}"
            step = "Ask for more ephemeral storage in the connection's checkPod.podTemplate.resources."
            raise TrainerError(Reason.ARTIFACT_FAILED, message, step) from error
    return found


def warned(verdict: DatasetVerdict, files: list[ConvertedFile]) -> DatasetVerdict:
    """The verdict with warnings about what the provider does to rows, before its other warnings."""
    found = [warning for file in files for warning in file.warnings]
    return verdict.model_copy(update={"warnings": [*found, *verdict.warnings][:MOST_WARNINGS]})


def evaluation_size(spec: FineTuneJobSpec, verdict: DatasetVerdict) -> EvaluationSize | None:
    """How much each model will be asked, from the length of the test set's text.

    Raises:
        TrainerError: the file has changed since it was checked.
    """
    checked = verdict.test
    if checked is None:
        return None
    rows, prompt_tokens, completion_tokens = 0, 0, 0
    for row in load_rows(spec.data, "test", allow_local=False, expected_sha256=checked.sha256):
        rows += 1
        completion_tokens += tokens_of(row.turns[-1])
        prompt_tokens += sum(map(tokens_of, row.turns[:-1]))
    return EvaluationSize(rows=rows, prompt_tokens=prompt_tokens, completion_tokens=completion_tokens)


def require_budget(spec: FineTuneJobSpec, tokens: int, price: Price | None) -> None:
    """Check that the estimated cost is within the budget.

    Raises:
        TrainerError: BudgetExceeded with both figures, or PriceUnknown.
    """
    budget = spec.budget
    if budget is None:
        return
    if price is None or price.currency != budget.currency:
        raise TrainerError(Reason.PRICE_UNKNOWN, f"no price of tuning {spec.base_model} in {budget.currency} is known")
    cost = estimate(tokens, spec.hyperparameters.epochs, price)
    if exceeds(cost, budget.max_cost):
        raise TrainerError(
            Reason.BUDGET_EXCEEDED,
            f"the estimate of {cost.estimated} {cost.currency} is above budget.maxCost {budget.max_cost}: {cost.basis}",
        )
