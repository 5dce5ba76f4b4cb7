"""FineTuneJob manifests from files, for `check` and `run`: YAML or JSON, one or several documents.

What the API server would refuse is refused here too, with the line, the field and what to write. Only `check` looks at
our other kinds in the same file. YAML is parsed in `yaml_documents.py`, invalid fields are described in
`wrong_fields.py`, and rules between fields of the other kinds are in `rules_between.py`.
"""

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, Field, ValidationError, create_model

from finetune_api.base import CORES_EXAMPLES, MODEL_REF_RULE, SERVICE_NAME, SIZE_EXAMPLES, ApiModel
from finetune_api.crds import KINDS, Kind
from finetune_api.dataset import Columns
from finetune_api.job import FineTuneJobManifest, ManifestMetadata, Resources
from finetune_api.names import API_VERSION, GROUP
from finetune_api.quantities import LEAST_SIZE, MOST_CORES, amount, nearest, nearest_cores
from finetune_api.reasons import Reason
from finetune_api.schema import structural_schema
from finetune_api.verdict import SPLITS
from finetune_trainer.data.read import dataset_uri
from finetune_trainer.errors import TrainerError
from finetune_trainer.job.fields import shown as field_path
from finetune_trainer.job.fields import value_at
from finetune_trainer.job.left_empty import left_empty
from finetune_trainer.job.open_parts import wrong_in_open_parts
from finetune_trainer.job.rules_between import broken_rules, of_quantity
from finetune_trainer.job.wrong_fields import WrongFields
from finetune_trainer.job.wrong_values import text_problem
from finetune_trainer.job.yaml_documents import Document, read_documents, shown

_KIND = "FineTuneJob"
_OUR_KINDS = frozenset(kind.kind for kind in KINDS)
_KINDS = ", ".join(sorted(_OUR_KINDS))
_OTHER_KINDS = {kind.kind: kind for kind in KINDS if kind.kind != _KIND}
_Model = TypeVar("_Model", bound=BaseModel)
_NAMED_ERRORS = 10
_LABEL = re.compile("[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_SERVER_METADATA = frozenset(
    {"creationTimestamp", "deletionGracePeriodSeconds", "deletionTimestamp", "finalizers", "generateName", "generation"}
    | {"managedFields", "ownerReferences", "resourceVersion", "selfLink", "uid"}
)
"""Metadata fields that the API server adds to those of a manifest."""

_MEANINGFUL_WHEN_EMPTY = {
    "FineTuneJob": ("preference", "tensorBoard"),
    "FineTunedModel": ("huggingFace", "azureOpenAI", "bedrock"),
    "ModelDeployment": ("huggingFace", "azureOpenAI", "bedrock"),
    "LLMConnection": ("namespaceSelector",),
}
"""Parts for which an empty value means something else than leaving them out."""

_NOTHING = "there is nothing after its colon, which leaves it out: write {} after it, or remove it"

_SUBDOMAIN = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
_OBJECT_NAME = re.compile(rf"(?=.{{1,253}}$){_SUBDOMAIN}")
_MAX_ANNOTATION_BYTES = 256 * 1024
_KEY = re.compile(rf"({_SUBDOMAIN}/)?(?=[^/]{{1,63}}$)[A-Za-z0-9]([-\w.]*[A-Za-z0-9])?", re.ASCII)
_LABEL_VALUE = re.compile(r"(?=.{0,63}$)([A-Za-z0-9]([-\w.]*[A-Za-z0-9])?)?", re.ASCII)


class OtherManifest(ApiModel):
    """Everything except the spec in a manifest of another kind."""

    api_version: Literal["finetune.dev/v1alpha1"] = Field(description="finetune.dev/v1alpha1")
    kind: str = Field(description="LLMConnection, FineTunedModel or ModelDeployment")
    metadata: ManifestMetadata = Field(description="Name and namespace.")


@dataclass(frozen=True)
class Other:
    """One of our objects other than a job, with valid fields."""

    kind: str
    name: str
    spec: ApiModel | None
    """None if left out."""

    @property
    def title(self) -> str:
        """Kind and name."""
        return f"{self.kind} {self.name}"


def read_job(path: Path) -> FineTuneJobManifest:
    """The only FineTuneJob in a file.

    Raises:
        TrainerError: SpecInvalid, as in read_jobs, or there are several.
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
    return _jobs(_read(path), path)


Warnings = dict[tuple[str, str], list[str]]
"""Warnings about objects, by kind and name."""


def read_all(path: Path, *, may_be_empty: bool = False) -> tuple[list[Other], list[FineTuneJobManifest], Warnings]:
    """Our other objects in a file, its FineTuneJobs, and warnings about both.

    `may_be_empty`: the file need not contain any of our objects, as one of several in a folder.

    Raises:
        TrainerError: SpecInvalid, as in read_jobs; a file without jobs must contain another of our objects.
    """
    documents = _read(path)
    others = [_other(document, kind) for document in documents if (kind := _OTHER_KINDS.get(document.kind))]
    has_jobs = any(document.kind == _KIND for document in documents)
    jobs = _jobs(documents, path) if has_jobs or not (others or may_be_empty) else []
    return others, jobs, _warnings(documents)


def _warnings(documents: list[Document]) -> Warnings:
    """Warnings about objects whose fields are all valid."""
    kinds = {kind.kind: kind for kind in KINDS}
    ours = [document for document in documents if document.kind in kinds]
    names = [(document.kind, str(document.value["metadata"].get("name"))) for document in ours]
    return {name: left_empty(kinds[name[0]], one) for name, one in zip(names, ours, strict=True)}


def _read(path: Path) -> list[Document]:
    """The objects in a file.

    Raises:
        TrainerError: SpecInvalid, as in read_documents; or one of ours occurs twice, or has an unknown kind.
    """
    documents, lines = read_documents(path), dict[tuple[str, ...], int]()
    for document in documents:
        _require_kind(document)
        metadata = document.value.get("metadata")
        if document.kind in _OUR_KINDS and isinstance(metadata, dict) and "name" in metadata:
            key = (document.kind, str(metadata.get("namespace", "")), str(metadata["name"]))
            before = lines.setdefault(key, line := document.line(()))
            if before != line:
                again = f"{document.kind} {key[2]} is on line {before} already, and would be changed to this one"
                message = f"{document.file_name} line {line}: {again}"
                raise TrainerError(Reason.SPEC_INVALID, message, "Give each a name of its own, or remove one of them.")
    return documents


def _require_kind(document: Document) -> None:
    """Refuse an unknown kind of our API group.

    Raises:
        TrainerError: SpecInvalid, with the kind that was probably meant.
    """
    kind = document.kind
    if kind in _OUR_KINDS or not str(document.value.get("apiVersion")).startswith(f"{GROUP}/"):
        return
    if not kind:
        wrong = TrainerError(Reason.SPEC_INVALID, "kind is missing, or no text", f"Write one of {_KINDS}.")
        raise _with_place(document, "kind", wrong)
    near = difflib.get_close_matches(kind.lower(), {one.lower(): one for one in _OUR_KINDS}, n=1, cutoff=0.7)
    meant = next((f"; did you mean {one}?" for one in _OUR_KINDS if near and one.lower() == near[0]), "")
    wrong = TrainerError(Reason.SPEC_INVALID, f"{GROUP} has no kind {kind}{meant}", f"Write one of {_KINDS}.")
    raise _with_place(document, "kind", wrong)


def _jobs(documents: list[Document], path: Path) -> list[FineTuneJobManifest]:
    found = [document for document in documents if document.kind == _KIND]
    if not found:
        step = f"Write a manifest with apiVersion: {API_VERSION} and kind: {_KIND}."
        raise TrainerError(Reason.SPEC_INVALID, f"{shown(path)} has no FineTuneJob", step)
    return [parse_job(document) for document in found]


def parse_job(document: Document) -> FineTuneJobManifest:
    """A manifest, validated as the API server would.

    Raises:
        TrainerError: SpecInvalid, names each wrong field by its line and path.
    """
    job = _parsed(document, FineTuneJobManifest)
    for field, broken, step in _rules(job):
        if broken:
            raise _with_place(document, field, _field_error(document, field, broken, step))
    for split in SPLITS:
        data = getattr(job.spec.dataset, split)
        try:
            _ = data and dataset_uri(data, split, allow_local=True)
        except TrainerError as error:
            raise _with_place(document, f"spec.dataset.{split}.uri", error) from None
    return job


def _other(document: Document, kind: Kind) -> Other:
    """One of our other objects, validated as the API server would.

    Raises:
        TrainerError: SpecInvalid, names each wrong field by its line and path.
    """
    spec: Any = (kind.spec | None, None) if kind.spec_optional else (kind.spec, ...)
    manifest = _parsed(document, create_model(kind.kind, __base__=OtherManifest, spec=spec))
    metadata = manifest.metadata
    for field, wrong, step in (*_metadata_rules(metadata), *_service_name_rule(kind, metadata.name)):
        if wrong:
            raise _with_place(document, field, _field_error(document, field, wrong, step))
    if endless := document.endless():  # not needed for a job: all its fields are known, and none is recursive
        raise TrainerError(Reason.SPEC_INVALID, f"{document.file_name} {endless}", "Write it out, without the alias.")
    wire = manifest.wire().get("spec", {})
    broken = [
        (path, f"{field_path(path)}: {message}")
        for path, message in broken_rules(structural_schema(kind.spec), wire, ("spec",))
    ]
    open_parts = wrong_in_open_parts(wire) if kind.kind == "LLMConnection" else ()
    if messages := [f"line {document.line(path)}: {message}" for path, message in (*broken, *open_parts)]:
        raise _invalid_fields(document, messages)
    return Other(kind.kind, metadata.name, getattr(manifest, "spec", None))


def _parsed(document: Document, model: type[_Model]) -> _Model:
    if octal := document.octal():
        step = "Write the number without a zero before it, or in quotes where text is meant."
        raise TrainerError(Reason.SPEC_INVALID, f"{document.file_name} {octal}", step)
    if empty := document.empty(_MEANINGFUL_WHEN_EMPTY[document.kind]):
        raise _invalid_fields(document, [f"line {line}: {name}: {_NOTHING}" for line, name in empty])
    # kubectl get -o yaml shows a status, which is not part of the request
    value = _without_server_metadata({name: field for name, field in document.value.items() if name != "status"})
    try:
        return model.model_validate(value, strict=True, by_alias=True, by_name=False)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)
        describer = WrongFields(value, model)
        messages = list(dict.fromkeys(f"line {document.line(one['loc'])}: {describer.of(one)}" for one in found))
        raise _invalid_fields(document, messages) from None


def _invalid_fields(document: Document, messages: list[str]) -> TrainerError:
    more = f"; and {len(messages) - _NAMED_ERRORS} more" if len(messages) > _NAMED_ERRORS else ""
    message = f"{document.file_name} {'; '.join(messages[:_NAMED_ERRORS])}{more}"
    return TrainerError(Reason.SPEC_INVALID, message, "Correct the manifest.")


def _without_server_metadata(value: dict[str, Any]) -> dict[str, Any]:
    """The value without metadata of the API server; with a name if generateName is to be used for one."""
    metadata = value.get("metadata")
    if not isinstance(metadata, dict):
        return value
    asked = {name: field for name, field in metadata.items() if name not in _SERVER_METADATA}
    if "name" not in metadata and isinstance(metadata.get("generateName"), str):
        asked["name"] = f"{metadata['generateName']}xxxxx"
    return {**value, "metadata": asked}


def _field_error(document: Document, field: str, wrong: str, step: str) -> TrainerError:
    spoils = text_problem(value_at(document.value, field.split(".")))
    return TrainerError(Reason.SPEC_INVALID, f"{field}: {wrong}{spoils}", step)


def _with_place(document: Document, field: str, error: TrainerError) -> TrainerError:
    """The error with its place in the file."""
    place = f"{document.file_name} line {document.line(field.split('.'))}"
    return TrainerError(error.reason, f"{place}: {error.message}", error.next_step)


def _rules(job: FineTuneJobManifest) -> Iterator[tuple[str, str | None, str]]:
    """Rules of the API server beyond the bounds of single fields: field, what is wrong (or None), and what to write."""
    spec = job.spec
    yield from _metadata_rules(job.metadata)
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
    unread = spec.preference is not None and spec.dataset.columns.completion != Columns().completion
    instead = "it has no meaning with preference, whose answers are chosen and rejected" if unread else None
    yield "spec.dataset.columns.completion", instead, "Remove it, or remove spec.preference."
    twice = None if spec.dataset.columns.are_apart else "one column has two meanings"
    yield "spec.dataset.columns", twice, "Name each column once."
    both = "it is a part of the built-in recipe" if spec.preference and spec.code else None
    yield "spec.preference", both, "Remove it, or remove spec.code."
    trackers = spec.trackers
    nobody = "it names no tracker" if trackers and not trackers.wire() else None
    yield "spec.trackers", nobody, "Write mlflow, tensorBoard or wandb below it, or several of them."
    service = None if re.fullmatch(SERVICE_NAME, spec.model_ref.name) else MODEL_REF_RULE[1]
    yield "spec.modelRef.name", service, "Rename it, for example in lower case."
    yield from _quantity_rules(spec.resources)


def _metadata_rules(names: ManifestMetadata) -> Iterator[tuple[str, str | None, str]]:
    wrong = not _OBJECT_NAME.fullmatch(names.name)
    yield "metadata.name", "this is not a name of an object" if wrong else None, "Write a-z, 0-9, '-' and '.' only."
    wrong = names.namespace is not None and not _LABEL.fullmatch(names.namespace)
    yield "metadata.namespace", "this is not a name of a namespace" if wrong else None, "Write a-z, 0-9 and '-' only."
    unfit = next((name for name, text in (names.labels or {}).items() if not _is_label(name, text)), None)
    step = "Write at most 63 of A-Z, a-z, 0-9, '-', '_' and '.', with a letter or a digit at both ends."
    yield "metadata.labels", None if unfit is None else f"{unfit}: this is not a label", step
    unfit = next((name for name in names.annotations or {} if not _KEY.fullmatch(name.lower())), None)
    yield "metadata.annotations", None if unfit is None else f"{unfit}: this is not a key", step
    size = sum(len(name.encode()) + len(text.encode()) for name, text in (names.annotations or {}).items())
    large = f"they are {size:,} bytes together" if size > _MAX_ANNOTATION_BYTES else None
    yield "metadata.annotations", large, f"Write at most {_MAX_ANNOTATION_BYTES:,} bytes, names and texts together."


def _service_name_rule(kind: Kind, name: str) -> Iterator[tuple[str, str | None, str]]:
    unfit = kind.names_service and not re.fullmatch(SERVICE_NAME, name)
    step = "Write at most 63 of a-z, 0-9 and -, beginning with a letter and ending with a letter or a digit."
    yield "metadata.name", "it becomes the name of a Service" if unfit else None, step


def _is_label(name: str, text: str) -> bool:
    return _KEY.fullmatch(name) is not None and _LABEL_VALUE.fullmatch(text) is not None


def _quantity_rules(resources: Resources) -> Iterator[tuple[str, str | None, str]]:
    """The same for CPU, memory and scratch space."""
    written = resources.wire()
    for field in ("cpu", "memory", "ephemeralStorage"):
        value = written.get(field)
        found = None if value is None else amount(value)
        such = f"Write {CORES_EXAMPLES if field == 'cpu' else SIZE_EXAMPLES}."
        yield f"spec.resources.{field}", of_quantity(value), such
        near = f"; did you mean {meant}?" if field != "cpu" and (meant := nearest(value)) else ""
        quantity = f"this is not a quantity{near}" if value is not None and found is None else None
        yield f"spec.resources.{field}", quantity, such
        small = found is not None and field != "cpu" and found < LEAST_SIZE
        unit = "a number alone is bytes, and this is less than 64Ki" if small else None
        yield f"spec.resources.{field}", unit, "Write the unit, such as 16Gi or 512Mi."
    cores = amount(written.get("cpu", 1))
    none = "0 asks for no CPU" if cores == 0 else None
    yield "spec.resources.cpu", none, "Write the number of cores, such as 4 or 500m, or leave it out."
    near = f"; did you mean {meant}?" if (meant := nearest_cores(written.get("cpu"))) else ""
    many = f"no node has so many cores{near}" if cores is not None and cores > MOST_CORES else None
    yield "spec.resources.cpu", many, "Write their number, such as 4, or thousandths with a small m, such as 4000m."
