"""`finetune-trainer check`: reads the datasets of a FineTuneJob manifest and prints the verdict as JSON.

Fields of the other kinds in the same files are looked at too; a job whose connection is among them is checked for it.

Neither a cluster nor the base model is needed: without the model's tokenizer there are no token counts, and the
verdict says so. Imports no torch and no transformers.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_api import policy
from finetune_api.asked_in_vain import asked_in_vain
from finetune_api.connection import LLMConnectionSpec
from finetune_api.exit_codes import ExitCode
from finetune_api.job import FineTuneJobManifest, FineTuneJobSpec
from finetune_api.memory import MemoryUse
from finetune_api.openai import data_rules
from finetune_api.provider_fields import not_heeded
from finetune_api.quantities import LARGEST_NODE, amount
from finetune_api.reasons import Reason
from finetune_api.verdict import SPLITS, DatasetVerdict
from finetune_trainer.attempt import outcome
from finetune_trainer.data import file_names
from finetune_trainer.data.audit import as_text, audit
from finetune_trainer.data.provider.rules import require_rows, rules_for
from finetune_trainer.data.read import load_rows
from finetune_trainer.data.tokenizer.chat_tokenizer import ChatTokenizer
from finetune_trainer.data.verdict import check_dataset, failed
from finetune_trainer.errors import TrainerError, step_by
from finetune_trainer.job.given_files import GivenFile, connection_of, not_given, read_given
from finetune_trainer.job.yaml_documents import shown
from finetune_trainer.models import base_refusals
from finetune_trainer.models.memory_fit import doubt, in_words, judged, rooms_meant
from finetune_trainer.models.model_cache import find_model, is_air_gapped
from finetune_trainer.models.validation import config_file, vocabulary
from finetune_trainer.prepare import convert_all, warned

_NEXT_STEP_HERE = {
    Reason.DATASET_INVALID: "Correct the rows, or map the columns with spec.dataset.columns, and check again.",
    Reason.ACCESS_DENIED: "Check the credentials in this shell's environment (AWS_…, HF_TOKEN), and their rights.",
    Reason.STORE_UNAVAILABLE: "Check the network and the proxy of this shell, and check again.",
}
"""What to do at a shell, where the reason's own next step speaks of a job on a cluster."""


_AS_IT_IS = (
    "the manifest is valid; only the cluster knows whether what it names exists, and what may be changed: kubectl "
    "apply --dry-run=server -f FILE"
)
"""Of kinds other than jobs."""

_BRINGS_CODE = (
    "spec.baseModel: {} is of the kind {}, which transformers has no language model of: it needs Python code of its "
    "own, which runs only where the connection has huggingFace.trustRemoteCode: true"
)
_WITHOUT_CODE = "Ask an admin whether code of models may run there, or name a model that needs none."

_OF_THIS_MACHINE = (
    "file:// is a file of this machine, which the cluster rejects: write pvc://CLAIM/PATH, or another place there, "
    "before it is applied"
)
_WITHOUT_DATA = "the manifest is valid; its data were not read (--manifest-only)"
_ADOPTED = "the manifest is valid; its data were not read: spec.adopt names a job that has them"


@dataclass(frozen=True)
class Destination:
    """Where a job is meant to run, as far as that is known."""

    provider: str | None = None
    """Name of its rules in data.provider.rules; None for this project's trainer on the cluster, or if unknown."""
    connection: LLMConnectionSpec | None = None
    doubt: str | None = None
    """Why it may be another one."""

    @property
    def is_air_gapped(self) -> bool:
        """Whether hubs are out of reach there, or here."""
        local = self.connection and self.connection.hugging_face
        return is_air_gapped() or bool(local and local.air_gapped)


_ANYWHERE = Destination()


def main(args: argparse.Namespace) -> int:
    """Print one verdict for each object of ours in the files; the exit code is that of the first bad one."""
    try:
        given = read_given(args.files)
        codes = [_show(*verdict) for file in given for verdict in _verdicts(file, given, args)]
    except TrainerError as error:
        return outcome.complain(error)
    return next((code for code in codes if code), ExitCode.OK)


def _verdicts(
    file: GivenFile, given: Sequence[GivenFile], args: argparse.Namespace
) -> Iterator[tuple[DatasetVerdict, str, list[MemoryUse]]]:
    if file.wrong is not None:
        yield failed(file.wrong), shown(file.path), []
    for other in file.others:
        said, doubts = f"{other.title}: {_AS_IT_IS}", file.doubts.get((other.kind, other.name), [])
        yield DatasetVerdict(valid=True, reason=Reason.VALID, message=said, warnings=doubts), other.title, []
    for job in file.jobs:
        destination = _destination(job, file, given, args.provider)
        verdict, memory = _verdict(job, destination, args)
        more = filter(
            None, (*asked_in_vain(job.spec, destination.connection), _beyond_any_node(job.spec), destination.doubt)
        )
        empty = file.doubts.get((job.kind, job.metadata.name), [])
        verdict = verdict.model_copy(update={"warnings": [*verdict.warnings, *empty, *more]})
        yield verdict, job.metadata.name, memory
        if args.show_rows and verdict.valid and not args.manifest_only and job.spec.adopt is None:
            _show_rows(job, args.model_cache, args.show_rows)


def _beyond_any_node(spec: FineTuneJobSpec) -> str | None:
    """A warning and no refusal: a cluster may have a node that is not known here."""
    asked = spec.resources.memory
    if asked is None or (amount(asked) or 0) <= LARGEST_NODE:
        return None
    return f"spec.resources.memory: no known machine has {asked}; a job that fits on no node waits until one comes"


def _destination(
    job: FineTuneJobManifest, file: GivenFile, given: Sequence[GivenFile], provider: str | None
) -> Destination:
    """Where the connection leads, if it was given, else what the flag says; the flag counts before the connection."""
    found = connection_of(job, file, given)
    if found is None:
        return Destination(provider, doubt=None if provider else not_given(job, given))
    rules = None if found.spec.hugging_face is not None else data_rules(found.spec)
    if provider is not None and provider != rules:
        return Destination(provider)
    return Destination(rules, found.spec, found.doubt)


def _verdict(
    job: FineTuneJobManifest, destination: Destination, args: argparse.Namespace
) -> tuple[DatasetVerdict, list[MemoryUse]]:
    if args.manifest_only or job.spec.adopt is not None:
        return _by_itself(job.spec, destination), []
    verdict = check_job(job, args.model_cache, destination)
    if not verdict.valid or destination.provider:
        return verdict, []
    return by_memory(job.spec, verdict, args.model_cache, args.gpu_memory)


def _by_itself(spec: FineTuneJobSpec, destination: Destination) -> DatasetVerdict:
    """The verdict where no data are read, by their names alone. What only these commands take is told."""
    if (refused := _refused_at(destination, spec)) is not None:
        return refused
    named = {split: data for split in SPLITS if (data := getattr(spec.dataset, split)) is not None}
    warnings = [
        f"spec.dataset.{split}.uri: {_OF_THIS_MACHINE}" for split, data in named.items() if data.uri.startswith("file:")
    ]
    try:
        if spec.adopt is None:
            warnings += [doubt for split, data in named.items() for doubt in file_names.require_rows(data, split)]
    except TrainerError as error:
        return failed(error)
    said = _WITHOUT_DATA if spec.adopt is None else _ADOPTED
    return DatasetVerdict(valid=True, reason=Reason.VALID, message=said, warnings=warnings)


def by_memory(
    spec: FineTuneJobSpec, verdict: DatasetVerdict, model_cache: Path | None, gpu_memory: int | None
) -> tuple[DatasetVerdict, list[MemoryUse]]:
    """The verdict that the training pod would come to, and what it would take on devices that it may be meant for."""
    folder = find_model(model_cache, spec.base_model) if model_cache else None
    if folder is None or spec.code:
        why = "the job brings its own code" if spec.code else f"{spec.base_model} is in no model cache that was given"
        said = f"whether it fits on the GPU was not estimated: {why}"
        warnings = [*verdict.warnings, said] if gpu_memory else verdict.warnings
        return verdict.model_copy(update={"warnings": warnings}), []
    found = [judged(spec, folder, verdict, room) for room in rooms_meant(spec, gpu_memory)]
    refusals = [refused for _, refused in found if refused]
    if refusals and len(refusals) == len(found):
        verdict = verdict.model_copy(update=_fields(refusals[0]))
    return verdict, [use for use, _ in found if use]


def _fields(error: TrainerError) -> dict[str, Any]:
    return {"valid": False, "reason": error.reason, "message": error.message, "next_step": error.next_step}


def check_job(
    job: FineTuneJobManifest, model_cache: Path | None, destination: Destination = _ANYWHERE
) -> DatasetVerdict:
    """The verdict on the datasets of one manifest, by the rules of where it goes too; file:// is allowed."""
    if (refused := _refused_at(destination, job.spec)) is not None:
        return refused
    provider = destination.provider
    if (refused := _by_its_files(job.spec, model_cache, destination)) is not None:
        return refused
    counted = _counted_by(job.spec, provider) if provider else None
    try:
        tokenizer, why_not = cached_tokenizer(job.spec, model_cache)
    except TrainerError as error:
        if counted is None:  # else the provider's own model has another one
            return failed(error)
        tokenizer, why_not = None, error.message
    verdict = check_dataset(
        job.spec,
        tokenizer=tokenizer,
        no_tokens=counted or why_not,
        allow_local=True,
        air_gapped=destination.is_air_gapped,
    )
    if provider and verdict.valid:
        verdict = by_rules(job.spec, verdict, provider)
    elif verdict.valid and tokenizer is not None and job.spec.code is None:
        verdict = _by_its_vocabulary(job.spec, verdict, tokenizer, model_cache, air_gapped=destination.is_air_gapped)
    step = step_by(_NEXT_STEP_HERE, verdict.reason, verdict.next_step)
    kind = _lacks_leave(job.spec, model_cache, destination)
    warnings = [*verdict.warnings, *([_BRINGS_CODE.format(job.spec.base_model, kind)] if kind else [])]
    return verdict.model_copy(update={"next_step": step, "warnings": warnings})


def _refused_at(destination: Destination, spec: FineTuneJobSpec) -> DatasetVerdict | None:
    """What the operator would say of the job's fields before its data are read; None where all have a meaning."""
    connection, provider = destination.connection, destination.provider
    if connection is not None and (refusal := policy.refusal_of(spec, connection)) is not None:
        return failed(TrainerError(refusal.reason, refusal.message, refusal.next_step))
    found = not_heeded(spec, provider, connection) if provider else []
    said = f"for {provider} connections: {'; '.join(found)}"
    return failed(TrainerError(Reason.SPEC_INVALID, said, "Correct the manifest.")) if found else None


def _by_its_files(spec: FineTuneJobSpec, model_cache: Path | None, destination: Destination) -> DatasetVerdict | None:
    """What the trainer would say of the base model's files and of what the job names in them.

    None where they are right, and where no model is at hand to tell. Of a base of code of one's own, which reads files
    as it likes, only its kind and its numbers count.
    """
    try:
        if spec.code is not None and model_cache and not destination.provider:
            _of_own_code(spec, find_model(model_cache, spec.base_model))
        folder = _base_of(spec, model_cache, destination)
        if folder is not None:
            base_refusals.require_no_adapter(folder)
            if destination.connection is not None and (kind := _lacks_leave(spec, model_cache, destination)):
                said = _BRINGS_CODE.format(spec.base_model, kind)
                return failed(TrainerError(Reason.MODEL_UNUSABLE, said, _WITHOUT_CODE))
        if folder is not None and (folder / "config.json").is_file():
            base_refusals.require_whole_files(folder)
            config_file.require_for(spec, folder)
            base_refusals.require_room_for(spec.hyperparameters, folder)
            config_file.require_numbers(folder, four_bits=spec.method == "QLoRA")
            if spec.artifact.merge:
                base_refusals.require_plain_weights(folder)
    except TrainerError as error:
        return failed(error)
    return None


def _of_own_code(spec: FineTuneJobSpec, folder: Path | None) -> None:
    if folder is not None and (folder / "config.json").is_file():
        config_file.require_for_own_code(folder)
        if spec.artifact.merge:
            base_refusals.require_plain_weights(folder)


def _base_of(spec: FineTuneJobSpec, model_cache: Path | None, destination: Destination) -> Path | None:
    """The folder of the base model that our trainer would load by itself, where it is at hand."""
    looked_at = model_cache and not destination.provider and spec.code is None
    return find_model(model_cache, spec.base_model) if model_cache and looked_at else None


def _lacks_leave(spec: FineTuneJobSpec, model_cache: Path | None, destination: Destination) -> str | None:
    """The kind of a base model that needs code of its own, where nobody says that this may run."""
    local = destination.connection and destination.connection.hugging_face
    folder = None if local and local.trust_remote_code else _base_of(spec, model_cache, destination)
    return config_file.kind_of_its_own(folder) if folder is not None else None


def _by_its_vocabulary(
    spec: FineTuneJobSpec,
    verdict: DatasetVerdict,
    tokenizer: ChatTokenizer,
    model_cache: Path | None,
    *,
    air_gapped: bool,
) -> DatasetVerdict:
    """The verdict, or what the trainer would say where rows have tokens that the base model does not know."""
    folder = find_model(model_cache, spec.base_model) if model_cache else None
    try:
        if folder is not None:
            vocabulary.require(spec, folder, tokenizer, allow_local=True, air_gapped=air_gapped)
    except TrainerError as error:
        return verdict.model_copy(update=_fields(error))
    return verdict


def _counted_by(spec: FineTuneJobSpec, provider: str) -> str | None:
    """Why the tokens of a provider's own model need no cache, as the pod says it; None where the trainer trains."""
    with suppress(TrainerError):  # what it could not tune at all is told with the rows
        rules = rules_for(provider, spec)
        return f"{rules.title} counts them" if rules.billed_by_tokens else None
    return None


def by_rules(spec: FineTuneJobSpec, verdict: DatasetVerdict, provider: str) -> DatasetVerdict:
    """The verdict that the pod would come to which prepares the data for the provider; a budget needs its price."""
    try:
        rules = rules_for(provider, spec)
        require_rows(rules, verdict)
        with tempfile.TemporaryDirectory() as scratch:
            files = convert_all(spec, verdict, rules, Path(scratch), allow_local=True)
    except TrainerError as error:
        return verdict.model_copy(update=_fields(error))
    size, tokens = sum(file.bytes for file in files), files[0].tokens
    said = f"{verdict.message}; {rules.title} gets {size:,} bytes, about {tokens:,} tokens for each epoch"
    return warned(verdict, files).model_copy(update={"message": said})


def cached_tokenizer(spec: FineTuneJobSpec, model_cache: Path | None) -> tuple[ChatTokenizer | None, str]:
    """The base model's tokenizer from a model cache, or None and why there is none.

    Raises:
        TrainerError: the model is there and its tokenizer cannot be used.
    """
    if model_cache is None:
        return None, "no model cache was given (--model-cache DIR)"
    if not model_cache.is_dir():
        return None, f"{model_cache} is not a folder (--model-cache DIR)"
    folder = find_model(model_cache, spec.base_model)
    if folder is None:
        return None, f"{spec.base_model} is not in the model cache"
    return ChatTokenizer.from_folder(folder), ""


def _show_rows(job: FineTuneJobManifest, model_cache: Path | None, count: int) -> None:
    """A few rows of the training set with the tokens that carry loss, to stderr: they are the data's own text."""
    tokenizer, why_not = cached_tokenizer(job.spec, model_cache)
    if tokenizer is None:
        outcome.say(f"  rows cannot be shown as tokens: {why_not}")
        return
    rows = load_rows(job.spec.data, "train", allow_local=True, air_gapped=is_air_gapped())
    colour = sys.stderr.isatty() and "NO_COLOR" not in os.environ
    limit, pairs = tokenizer.row_limit(job.spec.hyperparameters), job.spec.preference is not None
    for row in audit(rows, tokenizer, limit, count, pairs=pairs):
        outcome.say(as_text(row, colour=colour))


def _show(verdict: DatasetVerdict, name: str, memory: list[MemoryUse]) -> int:
    """The verdict as JSON to stdout, the same for people to stderr.

    Raises:
        TrainerError: ArtifactFailed, stdout cannot be written.
    """
    taken = {"memory": [use.wire() for use in memory]} if memory else {}
    outcome.print_result(json.dumps(verdict.wire() | taken, indent=2, ensure_ascii=False))
    said = verdict.message if verdict.message.startswith(name) else f"{name}: {verdict.message}"
    lines = [
        said.replace("; line ", "\n  line "),  # each where an eye finds it; the JSON has them in one piece
        *(f"  warning: {warning}" for warning in verdict.warnings),
        *(f"  {in_words(use)}" for use in memory),
    ]
    lines += [f"  warning: {warning}" for use in memory if verdict.valid and (warning := doubt(use))]
    if verdict.next_step:
        lines.append(f"  {verdict.next_step}")
    outcome.say("\n".join(lines))
    if verdict.valid:
        return ExitCode.OK
    # What a connection refuses is no end that a trainer comes to: at a shell the manifest is what is wrong.
    return ExitCode.SPEC_INVALID if verdict.reason in policy.REASONS else TrainerError(verdict.reason, "").exit_code
