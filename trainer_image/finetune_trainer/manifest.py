"""FineTuneJob manifests from files, for `check` and `run`: YAML or JSON, one or several documents.

What the API server would refuse is refused here too, with the line, the field and what to write. Other kinds in the
same file are passed over. Reading YAML is `yaml_documents.py`.
"""

import difflib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from finetune_api.base import MODEL_REF_RULE, SERVICE_NAME
from finetune_api.job import FineTuneJobManifest
from finetune_api.names import API_VERSION
from finetune_api.reasons import Reason
from finetune_api.verdict import SPLITS
from finetune_trainer.data.read import dataset_uri
from finetune_trainer.errors import TrainerError
from finetune_trainer.quantities import LEAST_SIZE, amount
from finetune_trainer.yaml_documents import Document, read_documents, shown

_KIND = "FineTuneJob"
_NAMED_ERRORS = 10
_LABEL = re.compile("[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_OBJECT_NAME = re.compile(rf"(?=.{{1,253}}$){_LABEL.pattern}(\.{_LABEL.pattern})*")


def read_job(path: Path) -> FineTuneJobManifest:
    """The one FineTuneJob in a file.

    Raises:
        TrainerError: SpecInvalid, as read_jobs, or there are several.
    """
    jobs = read_jobs(path)
    if len(jobs) > 1:
        names = ", ".join(job.metadata.name for job in jobs)
        raise TrainerError(
            Reason.SPEC_INVALID, f"{shown(path)} has {len(jobs)} FineTuneJobs: {names}", "Give each a file of its own."
        )
    return jobs[0]


def read_jobs(path: Path) -> list[FineTuneJobManifest]:
    """All FineTuneJobs in a file, at least one. `-` is standard input.

    Raises:
        TrainerError: SpecInvalid, the file or a manifest in it cannot be used; names each wrong field.
    """
    documents = read_documents(path)
    found = [document for document in documents if document.kind == _KIND]
    if not found:
        kinds = [document.kind for document in documents if document.kind]
        near = difflib.get_close_matches(_KIND.lower(), [kind.lower() for kind in kinds], n=1, cutoff=0.8)
        meant = next((kind for kind in kinds if near and kind.lower() == near[0]), None)
        raise TrainerError(
            Reason.SPEC_INVALID,
            f"{shown(path)} has no FineTuneJob" + (f"; did you mean {_KIND} by kind {meant}?" if meant else ""),
            f"Write a manifest with apiVersion: {API_VERSION} and kind: {_KIND}.",
        )
    return [parse_job(document) for document in found]


def parse_job(document: Document) -> FineTuneJobManifest:
    """A manifest, checked as the API server would.

    Raises:
        TrainerError: SpecInvalid, names each wrong field by its line and path.
    """
    # kubectl get -o yaml shows a status, which is no part of what is asked for
    value = {name: field for name, field in document.value.items() if name != "status"}
    try:
        job = FineTuneJobManifest.model_validate(value, strict=True, by_alias=True, by_name=False)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)
        said = list(dict.fromkeys(f"line {document.line(one['loc'])}: {_in_words(one)}" for one in found))
        more = f"; and {len(said) - _NAMED_ERRORS} more" if len(said) > _NAMED_ERRORS else ""
        message = f"{document.file_name} {'; '.join(said[:_NAMED_ERRORS])}{more}"
        raise TrainerError(Reason.SPEC_INVALID, message, "Correct the manifest.") from None
    for field, broken, step in _rules(job):
        if broken:
            raise _at(document, field, TrainerError(Reason.SPEC_INVALID, f"{field}: {broken}", step))
    for split in SPLITS:
        data = getattr(job.spec.dataset, split)
        try:
            _ = data and dataset_uri(data, split, allow_local=True)
        except TrainerError as error:
            raise _at(document, f"spec.dataset.{split}.uri", error) from None
    return job


def _at(document: Document, field: str, error: TrainerError) -> TrainerError:
    """The error with its place in the file."""
    place = f"{document.file_name} line {document.line(field.split('.'))}"
    return TrainerError(error.reason, f"{place}: {error.message}", error.next_step)


def _rules(job: FineTuneJobManifest) -> Iterator[tuple[str, str | None, str]]:
    """What the API server asks for beyond the bounds of fields: field, what is wrong if it is, and what to write."""
    spec, names = job.spec, job.metadata
    wrong = not _OBJECT_NAME.fullmatch(names.name)
    yield "metadata.name", "this is no name of an object" if wrong else None, "Write a-z, 0-9, '-' and '.' only."
    wrong = names.namespace is not None and not _LABEL.fullmatch(names.namespace)
    yield "metadata.namespace", "this is no name of a namespace" if wrong else None, "Write a-z, 0-9 and '-' only."
    wrong = spec.method == "Full" and spec.lora is not None
    meaningless = f"lora has no meaning with method {spec.method}" if wrong else None
    yield "spec.lora", meaningless, "Remove spec.lora, or set spec.method to LoRA or QLoRA."
    wrong = spec.method == "Full" and spec.artifact.merge
    meaningless = "it has no meaning with method Full, which leaves a whole model" if wrong else None
    yield "spec.artifact.merge", meaningless, "Remove spec.artifact.merge."
    push = spec.artifact.push
    nowhere = "it names no place" if push and push.oci is None and push.hugging_face is None else None
    yield "spec.artifact.push", nowhere, "Write oci or huggingFace below it, or both."
    wrong = spec.resources.ranks > spec.hyperparameters.batch_size
    idle = f"{spec.resources.ranks} GPUs or nodes are more than a step has rows" if wrong else None
    yield "spec.hyperparameters.batchSize", idle, "Set it to at least resources.nodes times gpusPerNode."
    wrong = spec.code is not None and spec.resources.nodes > 1
    pods = "code runs in one pod" if wrong else None
    yield "spec.resources.nodes", pods, "Remove it, or remove spec.code for the built-in recipe."
    both = "trackers follow the built-in recipe" if spec.trackers and spec.code else None
    yield "spec.trackers", both, "Remove them, and log from your own code."
    answers = spec.dataset.columns.chosen or spec.dataset.columns.rejected
    alone = "names of two answers are for learning from both" if answers and spec.preference is None else None
    yield "spec.dataset.columns", alone, "Write spec.preference: {}, or remove chosen and rejected."
    twice = None if spec.dataset.columns.are_apart else "one column has two meanings"
    yield "spec.dataset.columns", twice, "Name each column once."
    both = "it is a part of the built-in recipe" if spec.preference and spec.code else None
    yield "spec.preference", both, "Remove it, or remove spec.code."
    trackers = spec.trackers
    nobody = "it names no tracker" if trackers and not trackers.wire() else None
    yield "spec.trackers", nobody, "Write mlflow, tensorBoard or wandb below it, or several of them."
    service = None if re.fullmatch(SERVICE_NAME, spec.model_ref.name) else MODEL_REF_RULE[1]
    yield "spec.modelRef.name", service, "Rename it, for example in small letters."
    for field in ("cpu", "memory", "ephemeralStorage"):
        value = spec.resources.wire().get(field)
        found = None if value is None else amount(value)
        quantity = "this is no quantity" if value is not None and found is None else None
        yield f"spec.resources.{field}", quantity, "Write a quantity such as 2, 500m or 16Gi."
        small = found is not None and field != "cpu" and found < LEAST_SIZE
        unit = "a number alone is bytes, and this is less than 64Ki" if small else None
        yield f"spec.resources.{field}", unit, "Write the unit, such as 16Gi or 512Mi."


def _in_words(error: ErrorDetails) -> str:
    """One wrong field: its path, what is wrong, and what to write."""
    path = [part for part in error["loc"] if not _is_union_tag(part)]
    where = _path(path)
    if error["type"] == "extra_forbidden":
        return f"{where}: no such field{_nearest(path)}"
    described = _description(path)
    if error["type"] == "missing":
        return f"{where} is required{f': {described}' if described else ''}"
    if error["type"] in ("model_type", "dict_type"):
        return f"{where}: write fields below it{_fields_of(path)}"
    if error["type"] == "string_pattern_mismatch" and (said := _rule_of(path)):
        return f"{where}: {said}"
    said = error["msg"].removeprefix("Value error, ")
    return f"{where}: {said[:1].lower()}{said[1:]}" + (f" ({described})" if described else "")


def _is_union_tag(part: str | int) -> bool:
    """Pydantic adds the member of a union to the path, as in cpu.int; Quantity is the only union here."""
    return part in ("str", "int", "float")


def _path(parts: list[str | int]) -> str:
    text = ""
    for part in parts:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text or "the manifest"


def _nearest(path: list[str | int]) -> str:
    """The field that was probably meant, else those that there are."""
    model = _model_at(path[:-1])
    if model is None:
        return ""
    names = _field_names(model)
    by_lower = {name.lower(): name for name in names}
    near = difflib.get_close_matches(str(path[-1]).lower(), by_lower, n=1, cutoff=0.6)
    return f"; did you mean {by_lower[near[0]]}?" if near else f"; there are {', '.join(names)}"


def _fields_of(path: list[str | int]) -> str:
    model = _model_at(path)
    return "" if model is None else f": {', '.join(_field_names(model))}"


def _field_names(model: type[BaseModel]) -> list[str]:
    return sorted(info.alias or name for name, info in model.model_fields.items())


def _rule_of(path: list[str | int]) -> str:
    """What the API server says about the shape of the field's text."""
    model = _model_at(path[:-1])
    schema = {} if model is None else model.model_json_schema(by_alias=True)["properties"].get(path[-1], {})
    rules = schema.get("x-kubernetes-validations", [])
    return rules[0]["message"] if rules else ""


def _description(path: list[str | int]) -> str:
    model = _model_at(path[:-1])
    if model is None:
        return ""
    info = next((info for name, info in model.model_fields.items() if path[-1] in (name, info.alias)), None)
    return (info.description or "").rstrip(".") if info else ""


def _model_at(path: list[str | int]) -> type[BaseModel] | None:
    """The model whose field the path leads to."""
    model: type[BaseModel] = FineTuneJobManifest
    for part in path:
        info = next((info for name, info in model.model_fields.items() if part in (name, info.alias)), None)
        inner = None if info is None else _model_in(info.annotation)
        if inner is None:
            return None
        model = inner
    return model


def _model_in(annotation: Any) -> type[BaseModel] | None:
    for candidate in (annotation, *get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None
