"""Which field was probably meant by a name that is none where it stands.

One that is alike, one of another part, or one that another tool calls so.
"""

from typing import Any, cast

from pydantic import BaseModel

from finetune_api.connection import PROVIDERS, PodTemplate
from finetune_api.crds import KINDS
from finetune_api.job import FineTuneJobManifest, ManifestMetadata
from finetune_api.near_names import nearest_name, plain
from finetune_trainer.job.fields import Path, field_names, model_at, places, required, shown, value_at
from finetune_trainer.job.other_names import OF_CONNECTIONS, OF_SERVING, column_of, place_of, remark_on, to_heed

_FEW = 2
"""Places of one name that are all told."""

_DEPTH_OF_BLOCKS = 2
"""As deep as `spec.bedrock`."""

_COLUMNS, _SELECTOR, _TEMPLATE = "spec.dataset.columns", "spec.namespaceSelector", "spec.deployment.template"
_SPLITS = frozenset(f"spec.dataset.{split}" for split in ("train", "validation", "test"))
_OF_DATA = _SPLITS | {"spec.dataset"}
_HABITS = _SPLITS | {"the manifest", "metadata", "spec", "spec.hyperparameters", "spec.lora", "spec.resources"}
_HABITS |= {"spec.dataset", "spec.trackers"}
"""Parts of a job in which a name that is not theirs may be meant for another part: elsewhere it says too little."""

_A_FILE = (
    "; a file is named by its uri, such as pvc://CLAIM/PATH, configmap://NAME/KEY, s3://BUCKET/KEY or "
    "hf://datasets/OWNER/NAME/PATH"
)
_NAMES_OF_DATA = frozenset({"name", "id", "repo", "repoid", "repository", "dataset"})
_OF_A_HUB = "; a file of a hub's dataset is uri: hf://datasets/OWNER/NAME/PATH"
_OF_ANY_OBJECT = frozenset({"kind", "apiVersion", "apiGroup", "group", "uid"})
"""What references of Kubernetes' own kinds have beside a name."""

_OF_PODS = frozenset(PodTemplate.model_fields[field].alias for field in PodTemplate.model_fields)
"""Written by people who know pods: `nodeSelector` is no slip of the pen for `namespaceSelector`."""

_OWN_NAMESPACE = {
    "FineTuneJob": "connections have no namespace, and all else is in the job's own",
    "LLMConnection": "Secrets of a connection are in the operator's namespace, what its pods need in the job's",
}


def meant(path: Path, manifest: dict[str, Any], root: type[BaseModel]) -> str:
    """The field that was probably meant, or what to do instead; empty where nothing is likely."""
    parent, name = shown(path[:-1]), str(path[-1])
    model = model_at(path[:-1], root)
    names = field_names(model) if model else []
    kind = str(manifest.get("kind"))
    same = next((one for one in names if plain(one) == plain(name)), None)
    if same := same or _still_missing(name, path[:-1], manifest, root):
        return f"; did you mean {same}?"
    below = value_at(manifest, path)
    if found := _by_where_it_stands(name, parent, kind, below, names):
        return found
    if isinstance(below, dict) and below and below.keys() <= set(names) and not _has_shares(below, path[:-1], root):
        return f"; its fields belong directly in {parent}"
    place = _above(name, path[:-1], manifest, root) or _below(name, path[:-1], root)
    near = nearest_name(name, names, required(model) if model else [])
    near = f"; here it is {place}" if place else f"; did you mean {near}?" if near else _of_a_pod(name, names)
    others = _of_no_part(name, parent, kind, below)
    if root is FineTuneJobManifest:
        return _of_a_job(name, parent, names) or near or (_A_FILE if parent in _SPLITS else others)
    remark = (OF_CONNECTIONS if kind == "LLMConnection" else OF_SERVING).get(plain(name))
    elsewhere = _elsewhere(name, list(path[:-1]), manifest, root)
    return f"; {remark}" if remark else elsewhere if name in _OF_PODS else near or elsewhere or others


def _has_shares(below: dict[str, Any], parent: Path, root: type[BaseModel]) -> bool:
    """Whether numbers stand where parts are to be, as in `splits: {train: 0.9, test: 0.1}`."""
    return any(isinstance(one, int | float) and model_at([*parent, name], root) for name, one in below.items())


def _by_where_it_stands(name: str, parent: str, kind: str, value: object, names: list[str]) -> str:
    """What parts say of names that people write there: the object itself, columns, references."""
    if parent == "the manifest" and name in field_names(ManifestMetadata):
        return f"; here it is metadata.{name}"
    if parent.endswith("Ref") and name in ("namespace", *_OF_ANY_OBJECT):
        return f"; leave it out: {_instead_of(name, parent.rpartition('.')[2], kind)}"
    return _column(name, value, names) if parent == _COLUMNS else ""


def _still_missing(name: str, parent: Path, manifest: dict[str, Any], root: type[BaseModel]) -> str | None:
    """A field that has to be there and is not, where what is called so, or most like it, stands there already."""
    model = model_at(parent, root)
    known = place_of(name) if root is FineTuneJobManifest else None
    likeliest = known.rpartition(".")[2] if known else nearest_name(name, field_names(model)) if model else None
    if model is None or likeliest is None or value_at(manifest, [*parent, likeliest]) is None:
        return None
    return nearest_name(name, [one for one in required(model) if value_at(manifest, [*parent, one]) is None])


def _of_no_part(name: str, parent: str, kind: str, below: object) -> str:
    """Of a field that no part of this kind has: a label of its own, or the kinds of ours whose spec has it."""
    if parent == _SELECTOR and not isinstance(below, dict | list):
        return f"; write matchLabels: {{{name}: …}}"
    if parent not in ("spec", _TEMPLATE):
        return ""
    found = [one.kind for one in KINDS if one.kind != kind and name in field_names(one.spec)]
    return f"; it is a field of {' and '.join(found)}" if found else ""


def _above(name: str, parent: Path, manifest: dict[str, Any], root: type[BaseModel]) -> str | None:
    """The field of this name in a part around this one, if it is not there yet: this one is indented too far."""
    for depth in range(len(parent) - 1, -1, -1):
        around = model_at(parent[:depth], root)
        if around is not None and name in field_names(around):
            return shown([*parent[:depth], name]) if value_at(manifest, [*parent[:depth], name]) is None else None
    return None


def _below(name: str, parent: Path, root: type[BaseModel]) -> str | None:
    """The field that is called so in a part that has to be there, and is the only such part here."""
    model = model_at(parent, root)
    needed = required(model) if model else []
    inner = [(one, model_at([*parent, one], root)) for one in needed]
    found = [one for one, part in inner if part is not None and name in required(part)]
    return shown([*parent, found[0], name]) if len(found) == 1 else None


def _of_a_pod(name: str, names: list[str]) -> str:
    """Where an amount stands that a job has in its resources themselves, in those of other kinds."""
    level_below = f"; write it below limits, below requests, or both: limits: {{{name}: …}}"
    return level_below if names == ["limits", "requests"] else ""


def _column(name: str, value: object, names: list[str]) -> str:
    """Of a column: the mapping that is meant the other way round, or what other tools call it."""
    if value in names:
        return f"; the other way round: {value}: {name}"
    known = column_of(name)
    return f"; did you mean {known}?" if known else ""


def _of_a_job(name: str, parent: str, names: list[str]) -> str:
    """Where what was meant stands in a job, if the name is another tool's, or that of one field of another part."""
    if parent not in _HABITS:
        return ""
    if parent in _OF_DATA and plain(name) in _NAMES_OF_DATA:
        return _OF_A_HUB
    remark = remark_on(name)
    place = place_of(name) or (None if remark else _only_place(name, parent))
    if place is not None and place.rpartition(".")[2] in names:
        return f"; did you mean {place.rpartition('.')[2]}?{to_heed(name)}"
    is_file = parent in _OF_DATA and place in _HABITS  # it is called like another part, as `training` is
    if place not in (None, parent) and not is_file:
        return f"; here it is {place}{to_heed(name)}"
    if place == parent:
        return f"; its fields belong directly in {parent}"
    return f"; {remark}" if remark else ""


def _only_place(name: str, parent: str) -> str | None:
    """The one field of a job that is called so; None where there are none, or several. Files are like no other part."""
    found = _called(name, FineTuneJobManifest)
    if parent in _SPLITS:
        found = [place for place in found if place.startswith("spec.dataset.")]
    if parent == "spec.dataset" and found and {place.rpartition(".")[0] for place in found} == _SPLITS:
        return f"spec.dataset.train.{name}"  # each file has it
    return found[0] if len(found) == 1 else None


def _instead_of(name: str, reference: str, kind: str) -> str:
    """By what is known what people write beside the name of another object."""
    if name == "namespace":
        return _OWN_NAMESPACE.get(kind, "it is in the namespace of the object itself")
    return f"{reference} alone says what kind of object it names"


def _elsewhere(name: str, parent: Path, manifest: dict[str, Any], root: type[BaseModel]) -> str:
    """Where fields of this name stand in the object."""
    found = _of_its_provider(_not_around(parent, _called(name, root)), manifest)
    likely = 0 < len(found) <= _FEW and all(_may_be_meant(place.split("."), parent, root) for place in found)
    return f"; here it is {' or '.join(found)}" if likely else ""


def of_other_providers(path: Path, manifest: dict[str, Any], root: type[BaseModel]) -> str:
    """The providers whose blocks have a field of this name; empty where it stands deeper than such blocks do."""
    *parent, name = path
    others = dict.fromkeys(_block(place) for place in _not_around(parent, _called(str(name), root)))
    is_of_others = bool(others) and others.keys() <= _others_than(manifest)
    return f"; it is a field of {', '.join(others)}" if is_of_others and len(parent) <= _DEPTH_OF_BLOCKS else ""


def _not_around(parent: Path, found: list[str]) -> list[str]:
    """Without the parts that a field is in."""
    around = {".".join(map(str, parent[:depth])) for depth in range(len(parent) + 1)}
    return [place for place in found if place not in around]


def _block(place: str) -> str:
    """The part of the spec that a place is in; empty of one outside of the spec."""
    return next(iter(place.split(".")[1:]), "")


def _others_than(manifest: dict[str, Any]) -> frozenset[str]:
    """The parts that go with another provider than the one that the manifest names; none where it names not one."""
    spec = manifest.get("spec")
    given = [provider for provider in PROVIDERS if isinstance(spec, dict) and provider in spec]
    if len(given) != 1:
        return frozenset()
    beside = {"checkPod"} if given == ["huggingFace"] else set()
    return frozenset({*PROVIDERS, *beside} - {*given})


def _of_its_provider(found: list[str], manifest: dict[str, Any]) -> list[str]:
    """Without those in parts that go with another provider than the one that the manifest names."""
    others = _others_than(manifest)
    return [place for place in found if _block(place) not in others]


def _may_be_meant(place: list[str], parent: Path, root: type[BaseModel]) -> bool:
    """Whether a name below `parent` may be meant for another place.

    Above it and below it, any. Beside it, as `allowedModels` of fineTuning is, only what the part there can do without:
    what that has to have is its own, as the URI of artifacts is, and no part of the cache beside it.
    """
    *above, name = place
    names = [part for part in parent if isinstance(part, str)]
    shorter = min(len(above), len(names))
    return above[:shorter] == names[:shorter] or name not in required(cast("type[BaseModel]", model_at(above, root)))


def _called(name: str, root: type[BaseModel]) -> list[str]:
    """Paths of the fields that are called so, in whatever letters."""
    return [path for called, paths in places(root).items() if plain(called) == plain(name) for path in paths]
