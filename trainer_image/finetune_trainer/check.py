"""`finetune-trainer check`: reads the datasets of a FineTuneJob manifest and prints the verdict as JSON.

Manifests of other kinds in the same files are checked too, and a job is checked against its connection if given.

Needs neither a cluster nor the base model: without the model's tokenizer there are no token counts, and the verdict
says so. Imports neither torch nor transformers.
"""

import argparse
import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_api import policy
from finetune_api.connection import LLMConnectionSpec
from finetune_api.exit_codes import ExitCode
from finetune_api.job import FineTuneJobManifest, FineTuneJobSpec
from finetune_api.memory import MemoryUse
from finetune_api.openai import data_rules
from finetune_api.provider_fields import unsupported_fields
from finetune_api.quantities import LARGEST_NODE, amount
from finetune_api.reasons import Reason
from finetune_api.verdict import SPLITS, DatasetVerdict
from finetune_api.without_effect import fields_without_effect
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
"""Next steps for a shell, where the reason's own next step assumes a job on a cluster."""


_VALID_ALONE = (
    "the manifest is valid; only the cluster knows whether what it names exists, and what may be changed: kubectl "
    "apply --dry-run=server -f FILE"
)
"""For kinds other than jobs."""

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
    """Where a job will run, as far as that is known."""

    provider: str | None = None
    """Name of its rules in data.provider.rules; None for this project's trainer on the cluster, or if unknown."""
    connection: LLMConnectionSpec | None = None
    doubt: str | None = None
    """Why the job may run somewhere else."""

    @property
    def is_air_gapped(self) -> bool:
        """Whether hubs are unreachable, from there or from here."""
        local = self.connection and self.connection.hugging_face
        return is_air_gapped() or bool(local and local.air_gapped)


_ANYWHERE = Destination()


def main(args: argparse.Namespace) -> int:
    """Print one verdict for each of our objects in the files; the exit code is that of the first invalid one."""
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
        message, doubts = f"{other.title}: {_VALID_ALONE}", file.doubts.get((other.kind, other.name), [])
        yield DatasetVerdict(valid=True, reason=Reason.VALID, message=message, warnings=doubts), other.title, []
    for job in file.jobs:
        destination = _destination(job, file, given, args.provider)
        verdict, memory = _verdict(job, destination, args)
        more = filter(
            None,
            (
                *fields_without_effect(job.spec, destination.connection),
                _larger_than_any_node(job.spec),
                destination.doubt,
            ),
        )
        empty = file.doubts.get((job.kind, job.metadata.name), [])
        verdict = verdict.model_copy(update={"warnings": [*verdict.warnings, *empty, *more]})
        yield verdict, job.metadata.name, memory
        if args.show_rows and verdict.valid and not args.manifest_only and job.spec.adopt is None:
            _show_rows(job, args.model_cache, args.show_rows)


def _larger_than_any_node(spec: FineTuneJobSpec) -> str | None:
    """A warning instead of an error: the cluster may have a larger node than we know of."""
    asked = spec.resources.memory
    if asked is None or (amount(asked) or 0) <= LARGEST_NODE:
        return None
    return f"spec.resources.memory: no known machine has {asked}; a job that fits on no node waits until one comes"


def _destination(
    job: FineTuneJobManifest, file: GivenFile, given: Sequence[GivenFile], provider: str | None
) -> Destination:
    """The given connection decides, otherwise the flag; a flag that contradicts the connection wins."""
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
        return _verdict_without_data(job.spec, destination), []
    verdict = check_job(job, args.model_cache, destination)
    if not verdict.valid or destination.provider:
        return verdict, []
    return by_memory(job.spec, verdict, args.model_cache, args.gpu_memory)


def _verdict_without_data(spec: FineTuneJobSpec, destination: Destination) -> DatasetVerdict:
    """The verdict without reading data, from the file names alone. Warns of URIs that only these commands accept."""
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
    message = _WITHOUT_DATA if spec.adopt is None else _ADOPTED
    return DatasetVerdict(valid=True, reason=Reason.VALID, message=message, warnings=warnings)


def by_memory(
    spec: FineTuneJobSpec, verdict: DatasetVerdict, model_cache: Path | None, gpu_memory: int | None
) -> tuple[DatasetVerdict, list[MemoryUse]]:
    """The verdict that the training pod would reach, and the memory needed on each device that the job may run on."""
    folder = find_model(model_cache, spec.base_model) if model_cache else None
    if folder is None or spec.code:
        why = "the job brings its own code" if spec.code else f"{spec.base_model} is in no model cache that was given"
        message = f"whether it fits on the GPU was not estimated: {why}"
        warnings = [*verdict.warnings, message] if gpu_memory else verdict.warnings
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
    """The verdict on the datasets of one manifest, including the destination's rules; allows file://."""
    if (refused := _refused_at(destination, job.spec)) is not None:
        return refused
    provider = destination.provider
    if (refused := _refused_by_base_files(job.spec, model_cache, destination)) is not None:
        return refused
    counted = _token_counter(job.spec, provider) if provider else None
    try:
        tokenizer, why_not = cached_tokenizer(job.spec, model_cache)
    except TrainerError as error:
        if counted is None:  # otherwise the provider counts with its own tokenizer
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
        verdict = _with_vocabulary_checked(
            job.spec, verdict, tokenizer, model_cache, air_gapped=destination.is_air_gapped
        )
    step = step_by(_NEXT_STEP_HERE, verdict.reason, verdict.next_step)
    kind = _type_that_needs_code(job.spec, model_cache, destination)
    warnings = [*verdict.warnings, *([_BRINGS_CODE.format(job.spec.base_model, kind)] if kind else [])]
    return verdict.model_copy(update={"next_step": step, "warnings": warnings})


def _refused_at(destination: Destination, spec: FineTuneJobSpec) -> DatasetVerdict | None:
    """What the operator would object to in the job's fields before reading its data; None if nothing."""
    connection, provider = destination.connection, destination.provider
    if connection is not None and (refusal := policy.refusal_of(spec, connection)) is not None:
        return failed(TrainerError(refusal.reason, refusal.message, refusal.next_step))
    found = unsupported_fields(spec, provider, connection) if provider else []
    message = f"for {provider} connections: {'; '.join(found)}"
    return failed(TrainerError(Reason.SPEC_INVALID, message, "Correct the manifest.")) if found else None


def _refused_by_base_files(
    spec: FineTuneJobSpec, model_cache: Path | None, destination: Destination
) -> DatasetVerdict | None:
    """What the trainer would object to in the base model's files, and in what the job names in them.

    None if they are valid, or if the model is not in the cache. With the job's own code, which reads files as it likes,
    only the model's type and numbers are checked.
    """
    try:
        if spec.code is not None and model_cache and not destination.provider:
            _require_base_for_own_code(spec, find_model(model_cache, spec.base_model))
        folder = _cached_base(spec, model_cache, destination)
        if folder is not None:
            base_refusals.require_no_adapter(folder)
            if destination.connection is not None and (kind := _type_that_needs_code(spec, model_cache, destination)):
                message = _BRINGS_CODE.format(spec.base_model, kind)
                return failed(TrainerError(Reason.MODEL_UNUSABLE, message, _WITHOUT_CODE))
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


def _require_base_for_own_code(spec: FineTuneJobSpec, folder: Path | None) -> None:
    if folder is not None and (folder / "config.json").is_file():
        config_file.require_for_own_code(folder)
        if spec.artifact.merge:
            base_refusals.require_plain_weights(folder)


def _cached_base(spec: FineTuneJobSpec, model_cache: Path | None, destination: Destination) -> Path | None:
    """The folder of the base model that our own trainer would load, if it is in the cache."""
    looked_at = model_cache and not destination.provider and spec.code is None
    return find_model(model_cache, spec.base_model) if model_cache and looked_at else None


def _type_that_needs_code(spec: FineTuneJobSpec, model_cache: Path | None, destination: Destination) -> str | None:
    """The type of a base model that needs its own Python code, if nothing is known to allow that."""
    local = destination.connection and destination.connection.hugging_face
    folder = None if local and local.trust_remote_code else _cached_base(spec, model_cache, destination)
    return config_file.kind_of_its_own(folder) if folder is not None else None


def _with_vocabulary_checked(
    spec: FineTuneJobSpec,
    verdict: DatasetVerdict,
    tokenizer: ChatTokenizer,
    model_cache: Path | None,
    *,
    air_gapped: bool,
) -> DatasetVerdict:
    """The verdict, or the trainer's error if rows have tokens that are not in the base model's vocabulary."""
    folder = find_model(model_cache, spec.base_model) if model_cache else None
    try:
        if folder is not None:
            vocabulary.require(spec, folder, tokenizer, allow_local=True, air_gapped=air_gapped)
    except TrainerError as error:
        return verdict.model_copy(update=_fields(error))
    return verdict


def _token_counter(spec: FineTuneJobSpec, provider: str) -> str | None:
    """Why a provider's own model needs no cache to count tokens, in the pod's words; None if the trainer trains."""
    with suppress(TrainerError):  # a model it cannot tune is reported with the rows
        rules = rules_for(provider, spec)
        return f"{rules.title} counts them" if rules.billed_by_tokens else None
    return None


def by_rules(spec: FineTuneJobSpec, verdict: DatasetVerdict, provider: str) -> DatasetVerdict:
    """The verdict of the pod that prepares the data for the provider, except for the budget, which needs its price."""
    try:
        rules = rules_for(provider, spec)
        require_rows(rules, verdict)
        with tempfile.TemporaryDirectory() as scratch:
            files = convert_all(spec, verdict, rules, Path(scratch), allow_local=True)
    except TrainerError as error:
        return verdict.model_copy(update=_fields(error))
    size, tokens = sum(file.bytes for file in files), files[0].tokens
    message = f"{verdict.message}; {rules.title} gets {size:,} bytes, about {tokens:,} tokens for each epoch"
    return warned(verdict, files).model_copy(update={"message": message})


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
    """Print a few training rows with the tokens that carry loss to stderr; they contain text of the dataset."""
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
    """Print the verdict as JSON to stdout, and in readable form to stderr.

    Raises:
        TrainerError: ArtifactFailed, stdout cannot be written.
    """
    taken = {"memory": [use.wire() for use in memory]} if memory else {}
    outcome.print_result(json.dumps(verdict.wire() | taken, indent=2, ensure_ascii=False))
    message = verdict.message if verdict.message.startswith(name) else f"{name}: {verdict.message}"
    lines = [
        re.sub(r"; (?=(line|row|row group) \d)", "\n  ", message),  # one problem a line for people
        *(f"  warning: {warning}" for warning in verdict.warnings),
        *(f"  {in_words(use)}" for use in memory),
    ]
    lines += [f"  warning: {warning}" for use in memory if verdict.valid and (warning := doubt(use))]
    if verdict.next_step:
        lines.append(f"  {verdict.next_step}")
    outcome.say("\n".join(lines))
    if verdict.valid:
        return ExitCode.OK
    # A refusal by the connection's policy is no exit code of the trainer: at a shell the manifest is wrong.
    return ExitCode.SPEC_INVALID if verdict.reason in policy.REASONS else TrainerError(verdict.reason, "").exit_code
