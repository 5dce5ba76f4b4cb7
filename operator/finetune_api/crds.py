"""The four CustomResourceDefinitions, made from the models: names, columns, and rules about whole objects.

`python -m finetune_api.crds FOLDER…` writes them; nothing in those folders is written by hand.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from finetune_api.base import NOT_RECONCILED, RULES, SERVICE_NAME, ApiModel, rules
from finetune_api.connection import LLMConnectionSpec, LLMConnectionStatus
from finetune_api.deployment import ModelDeploymentSpec, ModelDeploymentStatus
from finetune_api.job import MUTABLE_FIELDS, FineTuneJobSpec
from finetune_api.job_status import FineTuneJobStatus
from finetune_api.model import FineTunedModelSpec, FineTunedModelStatus
from finetune_api.names import CATEGORY, GROUP, VERSION
from finetune_api.reasons import Reason
from finetune_api.schema import Schema, structural_schema

HEADER = "# Made by `make crds` from operator/finetune_api; change the models there, not this file.\n"


@dataclass(frozen=True)
class Column:
    """A column of `kubectl get`; with `wide` only `-o wide` shows it."""

    name: str
    path: str
    type: Literal["string", "integer", "number", "date"] = "string"
    description: str = ""
    wide: bool = False

    def wire(self) -> dict[str, Any]:
        """The column as the API spells it."""
        column: dict[str, Any] = {"name": self.name, "type": self.type, "jsonPath": self.path}
        if self.description:
            column["description"] = self.description
        return column | ({"priority": 1} if self.wide else {})


@dataclass(frozen=True)
class Kind:
    """What a CRD contains in addition to the schemas of spec and status."""

    kind: str
    plural: str
    short: str
    scope: Literal["Namespaced", "Cluster"]
    description: str
    spec: type[ApiModel]
    status: type[ApiModel]
    columns: tuple[Column, ...]
    names_service: bool = False
    """Whether a Service gets the object's name, which must then be a DNS label that begins with a letter."""
    spec_optional: bool = False
    """Whether an object without a spec is valid."""
    selectable: tuple[str, ...] = ()
    """Fields for `--field-selector`, from Kubernetes 1.31 on; 1.30 ignores them."""
    scale: Mapping[str, str] = field(default_factory=dict)
    """Paths of the scale subresource, with which `kubectl scale` and autoscalers set replicas."""


_AGE = Column("Age", ".metadata.creationTimestamp", "date")

_DELETING = Column(
    "Deleting",
    ".metadata.deletionTimestamp",
    "date",
    "Since when it is being deleted. Objects with a finalizer wait for the operator.",
    wide=True,
)


def _ready(*, wide: bool) -> Column:
    return Column("Ready", '.status.conditions[?(@.type=="Ready")].status', wide=wide)


_REASON = Column(
    "Reason", '.status.conditions[?(@.type=="Ready")].reason', description="Why it is in this state.", wide=True
)

_MESSAGE = Column(
    "Message",
    '.status.conditions[?(@.type=="Ready")].message',
    description="The same in a sentence: what it does or waits for, or what went wrong, and where.",
    wide=True,
)


KINDS = (
    Kind(
        kind="LLMConnection",
        plural="llmconnections",
        short="llmc",
        scope="Cluster",
        description="Where models may be trained and served, with which credentials and images, and by which "
        "namespaces. Cluster-wide, written by admins.",
        spec=LLMConnectionSpec,
        status=LLMConnectionStatus,
        columns=(
            Column("Provider", ".status.provider"),
            _ready(wide=False),
            _REASON,
            Column("Models", ".status.models", description="Glob patterns of allowed base models.", wide=True),
            Column("Checked", ".status.lastChecked", "date", "When the credentials were last checked.", wide=True),
            _MESSAGE,
            _AGE,
        ),
    ),
    Kind(
        kind="FineTuneJob",
        plural="finetunejobs",
        short="ftj",
        scope="Namespaced",
        description="One run of fine-tuning. Its success adds a version to a FineTunedModel. The spec cannot be "
        f"changed, except {', '.join(MUTABLE_FIELDS[:-1])} and {MUTABLE_FIELDS[-1]}.",
        spec=FineTuneJobSpec,
        status=FineTuneJobStatus,
        columns=(
            Column("Phase", ".status.phase"),
            Column("Model", ".spec.modelRef.name"),
            Column("Base", ".status.display.base"),
            Column("Method", ".status.display.method", description="Nothing where the provider chooses how it tunes."),
            Column("Progress", ".status.display.progress"),
            Column("Loss", ".status.display.trainLoss", description="Last training loss."),
            Column("Eval", ".status.display.evalLoss", description="Last validation loss: lower is better."),
            Column("Version", ".status.modelVersion", "integer"),
            Column(
                "Verdict", ".status.evaluation.verdict", description="Of the tuned model on dataset.test.", wide=True
            ),
            Column("Connection", ".spec.connectionRef.name", wide=True),
            _DELETING,
            _REASON,
            _MESSAGE,
            _AGE,
        ),
        selectable=(".spec.baseModel", ".spec.connectionRef.name", ".spec.modelRef.name", ".status.phase"),
    ),
    Kind(
        kind="FineTunedModel",
        plural="finetunedmodels",
        short="ftm",
        scope="Namespaced",
        description="The versions of a tuned model, of which exactly one is active. Created by the first "
        "FineTuneJob that names it, or beforehand to configure activation and serving.",
        spec=FineTunedModelSpec,
        status=FineTunedModelStatus,
        columns=(
            Column("Active", ".status.activeVersion", "integer"),
            Column("Latest", ".status.latestVersion", "integer"),
            Column("Base", ".status.display.base"),
            Column(
                "Eval",
                ".status.display.evalLoss",
                description="Validation loss of the active version: lower is better.",
            ),
            Column("Deployment", ".status.deployment"),
            _ready(wide=False),
            Column("Activation", ".spec.activation", wide=True),
            _DELETING,
            _REASON,
            _MESSAGE,
            _AGE,
        ),
        names_service=True,
        spec_optional=True,
    ),
    Kind(
        kind="ModelDeployment",
        plural="modeldeployments",
        short="md",
        scope="Namespaced",
        description="Serves one version of a FineTunedModel: by a server on this cluster, or by a deployment at a "
        "provider.",
        spec=ModelDeploymentSpec,
        status=ModelDeploymentStatus,
        columns=(
            Column("Phase", ".status.phase"),
            Column("Model", ".spec.modelRef.name"),
            Column("Version", ".status.servedVersion", "integer", "Version that is served now."),
            Column("Engine", ".status.engine"),
            Column("Replicas", ".status.replicas", "integer", "Number of ready pods."),
            Column("URL", ".status.endpoint.url"),
            Column(
                "Cost",
                ".status.cost.display",
                description="Price of an hour at its provider, or by tokens; what is attached may be another's, too.",
                wide=True,
            ),
            Column("Asked", ".status.usage.lastRequestAt", "date", "When it was last used.", wide=True),
            Column("Target", ".status.targetVersion", "integer", "Version that should be served.", wide=True),
            _ready(wide=True),
            _DELETING,
            _REASON,
            _MESSAGE,
            _AGE,
        ),
        names_service=True,
        selectable=(".spec.modelRef.name", ".status.phase"),
        scale={
            "specReplicasPath": ".spec.huggingFace.replicas",
            "statusReplicasPath": ".status.replicas",
            "labelSelectorPath": ".status.selector",
        },
    ),
)


def crd(kind: Kind) -> dict[str, Any]:
    """The definition of one kind, ready to apply."""
    names = {
        "kind": kind.kind,
        "listKind": f"{kind.kind}List",
        "plural": kind.plural,
        "singular": kind.kind.lower(),
        "shortNames": [kind.short],
        "categories": [CATEGORY],
    }
    version: dict[str, Any] = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "subresources": {"status": {}} | ({"scale": dict(kind.scale)} if kind.scale else {}),
        "additionalPrinterColumns": [column.wire() for column in kind.columns],
        "schema": {"openAPIV3Schema": object_schema(kind)},
    }
    if kind.selectable:
        version["selectableFields"] = [{"jsonPath": path} for path in kind.selectable]
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural}.{GROUP}"},
        "spec": {"group": GROUP, "names": names, "scope": kind.scope, "versions": [version]},
    }


def object_schema(kind: Kind) -> Schema:
    """Schema of a whole object: the common parts, spec, status, and the rule for the object's name."""
    spec = structural_schema(kind.spec)
    if kind.kind == "FineTuneJob":
        spec = immutable(spec, MUTABLE_FIELDS)
    properties: dict[str, Schema] = {
        "apiVersion": {"type": "string", "description": f"{GROUP}/{VERSION}"},
        "kind": {"type": "string", "description": kind.kind},
        "metadata": {"type": "object"},
        "spec": spec,
        # Status has one writer: atomic, as per-field managedFields were half of what the API server reads.
        "status": structural_schema(kind.status, defaults=False)
        | {"x-kubernetes-map-type": "atomic", "default": initial_status(kind.status)},
    }
    schema: Schema = {"type": "object", "description": kind.description, "properties": properties}
    if kind.spec_optional:
        spec["default"] = kind.spec().wire()
    else:
        schema["required"] = ["spec"]
    return schema | (_name_rule(kind) if kind.names_service else {})


def initial_status(status: type[ApiModel]) -> dict[str, Any]:
    """Default status of an object that was not reconciled yet: tools consider an object without a status as done."""
    said = {"reason": Reason.PENDING.value, "message": "the operator has not reported on it yet", **_NEVER}
    conditions = [
        {"type": "Ready", "status": "False", **said},
        {"type": "Reconciling", "status": "True", **said},
        {"type": "Stalled", "status": "False", **said, "message": ""},
    ]
    phase = {"phase": Reason.PENDING.value} if "phase" in status.model_fields else {}
    return {"observedGeneration": NOT_RECONCILED, **phase, "conditions": conditions}


_NEVER = {"lastTransitionTime": "1970-01-01T00:00:00Z", "observedGeneration": NOT_RECONCILED}


def immutable(spec: Schema, mutable: Sequence[str]) -> Schema:
    """The schema with a rule for each field that may not change. Adding or removing a field is a change, too.

    The API server evaluates the rules at each write of a status, and a rule of the field itself needs no look-up. An
    optional field needs a rule of the spec as well. All other rules of these fields are evaluated only at creation.
    """
    unknown = set(mutable) - set(spec["properties"])
    if unknown:
        raise KeyError(f"{', '.join(sorted(unknown))}: no such field")
    may = f"{', '.join(mutable[:-1])} and {mutable[-1]}"
    fields, of_spec = dict(spec["properties"]), _evaluated_once(spec)
    for name in [known for known in fields if known not in mutable]:
        refused = {
            "message": f"{name} cannot be changed: of a job's spec only {may} can; "
            "apply the job under a new name to run it with other settings",
            "reason": "FieldValueForbidden",
        }
        fixed = _with_rules_evaluated_once(fields[name])
        fields[name] = {**fixed, RULES: [*fixed.get(RULES, ()), {"rule": "self == oldSelf", **refused}]}
        if name not in spec.get("required", ()) and "default" not in fixed:
            rule = f"has(self.{name}) == has(oldSelf.{name})"
            of_spec.append({"rule": rule, **refused, "fieldPath": f".{name}"})
    return {**spec, "properties": fields, RULES: of_spec}


def _with_rules_evaluated_once(part: Schema) -> Schema:
    """The same for each part of it, except list items, which the API server cannot match with the old ones."""
    made = {**part, RULES: _evaluated_once(part)} if RULES in part else dict(part)
    if "properties" in part:
        made["properties"] = {name: _with_rules_evaluated_once(inner) for name, inner in part["properties"].items()}
    return made


def _evaluated_once(part: Schema) -> list[Schema]:
    return [
        {**rule, "rule": f"oldSelf.hasValue() || ({rule['rule']})", "optionalOldSelf": True}
        for rule in part.get(RULES, ())
    ]


def _name_rule(kind: Kind) -> dict[str, Any]:
    return rules(
        (
            f"self.metadata.name.size() <= 63 && self.metadata.name.matches('{SERVICE_NAME}')",
            f"metadata.name of a {kind.kind} becomes the name of a Service: write at most 63 of a-z, 0-9 and -, "
            "beginning with a letter and ending with a letter or a digit",
        )
    )


class _WithoutAliases(yaml.SafeDumper):
    """Repeats equal parts instead of using anchors, which nobody expects in a manifest."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - the signature is PyYAML's
        return True


def files() -> Iterator[tuple[str, str]]:
    """File name and text of each definition."""
    for kind in KINDS:
        text = yaml.dump(crd(kind), Dumper=_WithoutAliases, sort_keys=False, width=120, allow_unicode=True)
        yield f"{GROUP}_{kind.plural}.yaml", HEADER + text


def main(folders: Sequence[str]) -> int:
    """Write the definitions into each folder."""
    if not folders:
        sys.stderr.write("usage: python -m finetune_api.crds FOLDER...\n")
        return 2
    for folder in map(Path, folders):
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files():
            (folder / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
