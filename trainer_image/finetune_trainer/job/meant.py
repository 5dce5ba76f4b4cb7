"""The field that was probably meant by an unknown name.

A similar one, one of another part, or the equivalent of another tool's name.
"""

from typing import Any, cast

from pydantic import BaseModel

from finetune_api.connection import PROVIDERS, PodTemplate
from finetune_api.crds import KINDS
from finetune_api.job import FineTuneJobManifest, ManifestMetadata
from finetune_api.near_names import nearest_name, plain
from finetune_trainer.job.fields import Path, field_names, model_at, places, required, shown, value_at
from finetune_trainer.job.other_names import OF_CONNECTIONS, OF_SERVING, column_of, difference_hint, hint_for, place_of

_FEW = 2
"""Maximum number of places to list for a name."""

_DEPTH_OF_BLOCKS = 2
"""Depth of provider blocks such as `spec.bedrock`."""

_COLUMNS, _SELECTOR, _TEMPLATE = "spec.dataset.columns", "spec.namespaceSelector", "spec.deployment.template"
_SPLITS = frozenset(f"spec.dataset.{split}" for split in ("train", "validation", "test"))
_DATASET = _SPLITS | {"spec.dataset"}
_HINTED = _SPLITS | {"the manifest", "metadata", "spec", "spec.hyperparameters", "spec.lora", "spec.resources"}
_HINTED |= {"spec.dataset", "spec.trackers"}
"""Parts of a job in which an unknown name is matched with other parts. Elsewhere it is not significant enough."""

_FILE_HINT = (
    "; a file is named by its uri, such as pvc://CLAIM/PATH, configmap://NAME/KEY, s3://BUCKET/KEY or "
    "hf://datasets/OWNER/NAME/PATH"
)
_NAMES_OF_DATA = frozenset({"name", "id", "repo", "repoid", "repository", "dataset"})
_HUB_HINT = "; a file of a hub's dataset is uri: hf://datasets/OWNER/NAME/PATH"
_REFERENCE_FIELDS = frozenset({"kind", "apiVersion", "apiGroup", "group", "uid"})
"""Further fields of references in Kubernetes' own kinds, beside the name."""

_POD_FIELDS = frozenset(PodTemplate.model_fields[field].alias for field in PodTemplate.model_fields)
"""Names that are known from pods: `nodeSelector` is not a misspelled `namespaceSelector`."""

_OWN_NAMESPACE = {
    "FineTuneJob": "connections have no namespace, and all else is in the job's own",
    "LLMConnection": "Secrets of a connection are in the operator's namespace, what its pods need in the job's",
}


def meant(path: Path, manifest: dict[str, Any], root: type[BaseModel]) -> str:
    """The field that was probably meant, or what to do instead; "" if nothing is likely."""
    parent, name = shown(path[:-1]), str(path[-1])
    model = model_at(path[:-1], root)
    names = field_names(model) if model else []
    kind = str(manifest.get("kind"))
    same = next((one for one in names if plain(one) == plain(name)), None)
    if same := same or _missing_required(name, path[:-1], manifest, root):
        return f"; did you mean {same}?"
    value = value_at(manifest, path)
    if found := _hint_by_part(name, parent, kind, value, names):
        return found
    if isinstance(value, dict) and value and value.keys() <= set(names) and not _has_fractions(value, path[:-1], root):
        return f"; its fields belong directly in {parent}"
    place = _in_enclosing_part(name, path[:-1], manifest, root) or _in_required_part(name, path[:-1], root)
    near = nearest_name(name, names, required(model) if model else [])
    near = f"; here it is {place}" if place else f"; did you mean {near}?" if near else _pod_resources_hint(name, names)
    others = _hint_without_part(name, parent, kind, value)
    if root is FineTuneJobManifest:
        return _job_hint(name, parent, names) or near or (_FILE_HINT if parent in _SPLITS else others)
    remark = (OF_CONNECTIONS if kind == "LLMConnection" else OF_SERVING).get(plain(name))
    elsewhere = _other_places_hint(name, list(path[:-1]), manifest, root)
    return f"; {remark}" if remark else elsewhere if name in _POD_FIELDS else near or elsewhere or others


def _has_fractions(value: dict[str, Any], parent: Path, root: type[BaseModel]) -> bool:
    """Whether numbers are given in place of parts, as in `splits: {train: 0.9, test: 0.1}`."""
    return any(isinstance(one, int | float) and model_at([*parent, name], root) for name, one in value.items())


def _hint_by_part(name: str, parent: str, kind: str, value: object, names: list[str]) -> str:
    """Hints for names that people write into certain parts: metadata at the top, columns, references."""
    if parent == "the manifest" and name in field_names(ManifestMetadata):
        return f"; here it is metadata.{name}"
    if parent.endswith("Ref") and name in ("namespace", *_REFERENCE_FIELDS):
        return f"; leave it out: {_determined_by(name, parent.rpartition('.')[2], kind)}"
    return _column_hint(name, value, names) if parent == _COLUMNS else ""


def _missing_required(name: str, parent: Path, manifest: dict[str, Any], root: type[BaseModel]) -> str | None:
    """A missing required field, if the field with this name, or the one most like it, is already present."""
    model = model_at(parent, root)
    known = place_of(name) if root is FineTuneJobManifest else None
    likeliest = known.rpartition(".")[2] if known else nearest_name(name, field_names(model)) if model else None
    if model is None or likeliest is None or value_at(manifest, [*parent, likeliest]) is None:
        return None
    return nearest_name(name, [one for one in required(model) if value_at(manifest, [*parent, one]) is None])


def _hint_without_part(name: str, parent: str, kind: str, value: object) -> str:
    """For a name that no part of this kind has: a label to be nested, or our other kinds whose spec has it."""
    if parent == _SELECTOR and not isinstance(value, dict | list):
        return f"; write matchLabels: {{{name}: …}}"
    if parent not in ("spec", _TEMPLATE):
        return ""
    found = [one.kind for one in KINDS if one.kind != kind and name in field_names(one.spec)]
    return f"; it is a field of {' and '.join(found)}" if found else ""


def _in_enclosing_part(name: str, parent: Path, manifest: dict[str, Any], root: type[BaseModel]) -> str | None:
    """The absent field of this name in an enclosing part: the given one is indented too far."""
    for depth in range(len(parent) - 1, -1, -1):
        around = model_at(parent[:depth], root)
        if around is not None and name in field_names(around):
            return shown([*parent[:depth], name]) if value_at(manifest, [*parent[:depth], name]) is None else None
    return None


def _in_required_part(name: str, parent: Path, root: type[BaseModel]) -> str | None:
    """The required field of this name in a required part, if there is only one such part here."""
    model = model_at(parent, root)
    needed = required(model) if model else []
    inner = [(one, model_at([*parent, one], root)) for one in needed]
    found = [one for one, part in inner if part is not None and name in required(part)]
    return shown([*parent, found[0], name]) if len(found) == 1 else None


def _pod_resources_hint(name: str, names: list[str]) -> str:
    """Where to put an amount in a Kubernetes resources block, which jobs have directly in their resources."""
    level_below = f"; write it below limits, below requests, or both: limits: {{{name}: …}}"
    return level_below if names == ["limits", "requests"] else ""


def _column_hint(name: str, value: object, names: list[str]) -> str:
    """Hint for a column: the mapping is the wrong way round, or the name is another tool's."""
    if value in names:
        return f"; the other way round: {value}: {name}"
    known = column_of(name)
    return f"; did you mean {known}?" if known else ""


def _job_hint(name: str, parent: str, names: list[str]) -> str:
    """The equivalent in a job of another tool's name, or the place of a field that belongs to another part."""
    if parent not in _HINTED:
        return ""
    if parent in _DATASET and plain(name) in _NAMES_OF_DATA:
        return _HUB_HINT
    remark = hint_for(name)
    place = place_of(name) or (None if remark else _only_place(name, parent))
    if place is not None and place.rpartition(".")[2] in names:
        return f"; did you mean {place.rpartition('.')[2]}?{difference_hint(name)}"
    is_file = parent in _DATASET and place in _HINTED  # a split named like another part, such as `training`
    if place not in (None, parent) and not is_file:
        return f"; here it is {place}{difference_hint(name)}"
    if place == parent:
        return f"; its fields belong directly in {parent}"
    return f"; {remark}" if remark else ""


def _only_place(name: str, parent: str) -> str | None:
    """The only field of a job with this name; None if there are none or several. Within a file only dataset fields."""
    found = _paths_named(name, FineTuneJobManifest)
    if parent in _SPLITS:
        found = [place for place in found if place.startswith("spec.dataset.")]
    if parent == "spec.dataset" and found and {place.rpartition(".")[0] for place in found} == _SPLITS:
        return f"spec.dataset.train.{name}"  # every split has it
    return found[0] if len(found) == 1 else None


def _determined_by(name: str, reference: str, kind: str) -> str:
    """What determines the value that people write beside the name in a reference."""
    if name == "namespace":
        return _OWN_NAMESPACE.get(kind, "it is in the namespace of the object itself")
    return f"{reference} alone says what kind of object it names"


def _other_places_hint(name: str, parent: Path, manifest: dict[str, Any], root: type[BaseModel]) -> str:
    """Other places of fields with this name in the object."""
    found = _of_same_provider(_outside(parent, _paths_named(name, root)), manifest)
    likely = 0 < len(found) <= _FEW and all(_qualifies(place.split("."), parent, root) for place in found)
    return f"; here it is {' or '.join(found)}" if likely else ""


def of_other_providers(path: Path, manifest: dict[str, Any], root: type[BaseModel]) -> str:
    """The providers whose blocks have a field of this name; "" if the field is nested deeper than such blocks."""
    *parent, name = path
    others = dict.fromkeys(_block(place) for place in _outside(parent, _paths_named(str(name), root)))
    is_of_others = bool(others) and others.keys() <= _other_providers_parts(manifest)
    return f"; it is a field of {', '.join(others)}" if is_of_others and len(parent) <= _DEPTH_OF_BLOCKS else ""


def _outside(parent: Path, found: list[str]) -> list[str]:
    """The places except those that contain the field."""
    around = {".".join(map(str, parent[:depth])) for depth in range(len(parent) + 1)}
    return [place for place in found if place not in around]


def _block(place: str) -> str:
    """The part of the spec that contains a place; "" outside the spec."""
    return next(iter(place.split(".")[1:]), "")


def _other_providers_parts(manifest: dict[str, Any]) -> frozenset[str]:
    """The parts that belong to other providers than the one in the manifest; empty unless it names exactly one."""
    spec = manifest.get("spec")
    given = [provider for provider in PROVIDERS if isinstance(spec, dict) and provider in spec]
    if len(given) != 1:
        return frozenset()
    extra = {"checkPod"} if given == ["huggingFace"] else set()
    return frozenset({*PROVIDERS, *extra} - {*given})


def _of_same_provider(found: list[str], manifest: dict[str, Any]) -> list[str]:
    """The places except those in parts of other providers than the one in the manifest."""
    others = _other_providers_parts(manifest)
    return [place for place in found if _block(place) not in others]


def _qualifies(place: list[str], parent: Path, root: type[BaseModel]) -> bool:
    """Whether a name below `parent` may be meant for another place.

    Any place above or below it qualifies. A sibling part, such as fineTuning with `allowedModels`, qualifies only with
    an optional field: a required one belongs to that part, as the uri of artifacts does, not to the cache beside it.
    """
    *above, name = place
    names = [part for part in parent if isinstance(part, str)]
    shorter = min(len(above), len(names))
    return above[:shorter] == names[:shorter] or name not in required(cast("type[BaseModel]", model_at(above, root)))


def _paths_named(name: str, root: type[BaseModel]) -> list[str]:
    """Paths of the fields with this name, ignoring case and separators."""
    return [path for called, paths in places(root).items() if plain(called) == plain(name) for path in paths]
