"""FineTuneJob manifests from files, for `check` and `run`: YAML or JSON, one or several documents.

What the API server would refuse is refused here too, with the field and what to write. Other kinds in the same file
are passed over.
"""

import difflib
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from finetune_api.job import FineTuneJobManifest
from finetune_api.names import API_VERSION
from finetune_api.reasons import Reason
from finetune_api.verdict import SPLITS
from finetune_trainer.data.read import dataset_uri
from finetune_trainer.errors import TrainerError

_KIND = "FineTuneJob"
_NAMED_ERRORS = 10


class _Loader(yaml.SafeLoader):
    """YAML as Kubernetes reads it: a key that stands twice is an error, a date is text."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML's own way to declare them
        first: [(tag, pattern) for tag, pattern in found if tag != "tag:yaml.org,2002:timestamp"]
        for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        twice = next((key for index, key in enumerate(keys) if key in keys[:index] and key != "<<"), None)
        if twice is not None:
            raise yaml.constructor.ConstructorError(None, None, f"{twice} stands twice", node.start_mark)
        return super().construct_mapping(node, deep)


def read_job(path: Path) -> FineTuneJobManifest:
    """The one FineTuneJob in a file.

    Raises:
        TrainerError: SpecInvalid, as read_jobs, or there are several.
    """
    jobs = read_jobs(path)
    if len(jobs) > 1:
        names = ", ".join(job.metadata.name for job in jobs)
        raise TrainerError(
            Reason.SPEC_INVALID, f"{path.name} has {len(jobs)} FineTuneJobs: {names}", "Give each a file of its own."
        )
    return jobs[0]


def read_jobs(path: Path) -> list[FineTuneJobManifest]:
    """All FineTuneJobs in a file, at least one.

    Raises:
        TrainerError: SpecInvalid, the file or a manifest in it cannot be used; names each wrong field.
    """
    found = [document for document in _documents(path) if _is_job(document)]
    if not found:
        raise TrainerError(
            Reason.SPEC_INVALID,
            f"{path.name} has no FineTuneJob",
            f"Write a manifest with apiVersion: {API_VERSION} and kind: {_KIND}.",
        )
    return [parse_job(document) for document in found]


def parse_job(document: dict[str, Any]) -> FineTuneJobManifest:
    """A manifest, checked as the API server would.

    Raises:
        TrainerError: SpecInvalid, names each wrong field by its path.
    """
    try:
        job = FineTuneJobManifest.model_validate(document)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)
        said = list(dict.fromkeys(_in_words(one) for one in found))
        more = f"; and {len(said) - _NAMED_ERRORS} more" if len(said) > _NAMED_ERRORS else ""
        raise TrainerError(
            Reason.SPEC_INVALID, "; ".join(said[:_NAMED_ERRORS]) + more, "Correct the manifest."
        ) from None
    if job.spec.method != "LoRA" and job.spec.lora is not None:
        raise TrainerError(
            Reason.SPEC_INVALID,
            f"spec.lora: lora has no meaning with method {job.spec.method}",
            "Remove spec.lora, or set spec.method to LoRA.",
        )
    for split in SPLITS:
        data = getattr(job.spec.dataset, split)
        if data is not None:
            dataset_uri(data, split, allow_local=True)
    return job


def _documents(path: Path) -> list[Any]:
    try:
        text = path.read_text(encoding="utf-8")
        return list(yaml.load_all(text, Loader=_Loader))
    except OSError as error:
        raise TrainerError(
            Reason.SPEC_INVALID, f"{path.name} cannot be read: {error.strerror}", "Name the manifest with -f FILE."
        ) from None
    except UnicodeDecodeError:
        raise TrainerError(Reason.SPEC_INVALID, f"{path.name} is not UTF-8 text", "Save it as UTF-8.") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise TrainerError(
            Reason.SPEC_INVALID, f"{path.name}{_place(error)}", "Correct the YAML; indent with spaces."
        ) from None


def _place(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or "it is not valid YAML"
    return f": {problem}" if mark is None else f" line {mark.line + 1}: {problem}"


def _is_job(document: Any) -> bool:
    """Whether a document means to be a FineTuneJob, misspelt versions included."""
    return isinstance(document, dict) and document.get("kind") == _KIND


def _in_words(error: ErrorDetails) -> str:
    """One wrong field: its path, what is wrong, and what to write."""
    path = [part for part in error["loc"] if not _is_union_tag(part)]
    where = _path(path)
    if error["type"] == "extra_forbidden":
        return f"{where}: no such field{_nearest(path)}"
    described = _description(path)
    if error["type"] == "missing":
        return f"{where} is required{f': {described}' if described else ''}"
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
    names = [info.alias or name for name, info in model.model_fields.items()]
    by_lower = {name.lower(): name for name in names}
    near = difflib.get_close_matches(str(path[-1]).lower(), by_lower, n=1, cutoff=0.6)
    return f"; did you mean {by_lower[near[0]]}?" if near else f"; there are {', '.join(sorted(names))}"


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
