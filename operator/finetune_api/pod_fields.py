"""The core/v1 fields of Kubernetes 1.34 for those parts of a connection whose schema its CRD leaves to Kubernetes.

The cluster's API server decides about them. This table is for messages: suggestions for misspelt names, and what is
missing in a connection's file before it is applied.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

from finetune_api.quantities import amount

Shape = Mapping[str, Any]
"""Fields by name, required ones with a `!`. The value has the field's own fields, its allowed words, or is None."""


class InvalidPart(NamedTuple):
    """An invalid part."""

    what: Literal["Name", "Word", "Missing", "NoFields", "Quantity"]
    path: tuple[str | int, ...]
    known: tuple[str, ...]
    """Existing names, allowed words, or the fields that belong below it."""

    @property
    def place(self) -> str:
        """The path as users write it."""
        return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in self.path).removeprefix(".")


def _fields(names: str, **below: Any) -> Shape:
    """Fields of these names; `below` has the shapes of those whose content is known."""
    return {name: below.get(name.rstrip("!")) for name in names.split()}


QUANTITY = "quantity"
_OF_LABELS = ("In", "NotIn", "Exists", "DoesNotExist")
_LABELS = _fields(
    "matchLabels matchExpressions", matchExpressions=_fields("key! operator! values", operator=_OF_LABELS)
)
_ON_NODES = _fields("key! operator! values", operator=(*_OF_LABELS, "Gt", "Lt"))
_NODES = _fields("matchExpressions matchFields", matchExpressions=_ON_NODES, matchFields=_ON_NODES)
_PODS = _fields(
    "labelSelector matchLabelKeys mismatchLabelKeys namespaceSelector namespaces topologyKey!",
    labelSelector=_LABELS,
    namespaceSelector=_LABELS,
)
_REQUIRED, _PREFERRED = (f"{how}DuringSchedulingIgnoredDuringExecution" for how in ("required", "preferred"))
_BESIDE_PODS = {_REQUIRED: _PODS, _PREFERRED: _fields("weight! podAffinityTerm!", podAffinityTerm=_PODS)}
_ITEMS = _fields("key! path! mode")

TOLERATION = _fields(
    "effect key operator tolerationSeconds value",
    effect=("NoSchedule", "PreferNoSchedule", "NoExecute"),
    operator=("Equal", "Exists"),
)
AFFINITY: Shape = {
    "nodeAffinity": {
        _REQUIRED: _fields("nodeSelectorTerms!", nodeSelectorTerms=_NODES),
        _PREFERRED: _fields("weight! preference!", preference=_NODES),
    },
    "podAffinity": _BESIDE_PODS,
    "podAntiAffinity": _BESIDE_PODS,
}
VOLUME: Shape = {
    "awsElasticBlockStore": _fields("volumeID! fsType partition readOnly"),
    "azureDisk": _fields("diskName! diskURI! cachingMode fsType kind readOnly"),
    "azureFile": _fields("secretName! shareName! readOnly"),
    "cephfs": _fields("monitors! path readOnly secretFile secretRef user"),
    "cinder": _fields("volumeID! fsType readOnly secretRef"),
    "configMap": _fields("name defaultMode items optional", items=_ITEMS),
    "csi": _fields("driver! fsType nodePublishSecretRef readOnly volumeAttributes"),
    "downwardAPI": _fields("defaultMode items"),
    "emptyDir": _fields("medium sizeLimit", sizeLimit=QUANTITY),
    "ephemeral": _fields("volumeClaimTemplate"),
    "fc": _fields("fsType lun readOnly targetWWNs wwids"),
    "flexVolume": _fields("driver! fsType options readOnly secretRef"),
    "flocker": _fields("datasetName datasetUUID"),
    "gcePersistentDisk": _fields("pdName! fsType partition readOnly"),
    "gitRepo": _fields("repository! directory revision"),
    "glusterfs": _fields("endpoints! path! readOnly"),
    "hostPath": _fields(
        "path! type",
        type=("", "DirectoryOrCreate", "Directory", "FileOrCreate", "File", "Socket", "CharDevice", "BlockDevice"),
    ),
    "image": _fields("pullPolicy reference", pullPolicy=("Always", "IfNotPresent", "Never")),
    "iscsi": _fields(
        "targetPortal! iqn! lun! chapAuthDiscovery chapAuthSession fsType initiatorName iscsiInterface portals "
        "readOnly secretRef"
    ),
    "nfs": _fields("server! path! readOnly"),
    "persistentVolumeClaim": _fields("claimName! readOnly"),
    "photonPersistentDisk": _fields("pdID! fsType"),
    "portworxVolume": _fields("volumeID! fsType readOnly"),
    "projected": _fields("defaultMode sources"),
    "quobyte": _fields("registry! volume! group readOnly tenant user"),
    "rbd": _fields("monitors! image! fsType keyring pool readOnly secretRef user"),
    "scaleIO": _fields(
        "gateway! system! secretRef! fsType protectionDomain readOnly sslEnabled storageMode storagePool volumeName"
    ),
    "secret": _fields("defaultMode items optional secretName", items=_ITEMS),
    "storageos": _fields("fsType readOnly secretRef volumeName volumeNamespace"),
    "vsphereVolume": _fields("volumePath! fsType storagePolicyID storagePolicyName"),
}

_TEMPLATE: Shape = {"tolerations": TOLERATION, "affinity": AFFINITY}
_CONNECTION: Shape = {
    "huggingFace": {"podTemplate": _TEMPLATE, "modelCache": {"volume": VOLUME}},
    "checkPod": {"podTemplate": _TEMPLATE},
}


def invalid_parts(spec: Mapping[str, Any]) -> Iterator[InvalidPart]:
    """The invalid parts of a connection's spec, in manifest form, with their paths."""
    return _open_parts(spec, _CONNECTION, ("spec",))


def _open_parts(part: Mapping[str, Any], shape: Shape, path: tuple[str | int, ...]) -> Iterator[InvalidPart]:
    """Checks only the parts that the CRD leaves open; it has a schema for everything else."""
    for name, below in shape.items():
        value = part.get(name)
        if below in (TOLERATION, AFFINITY, VOLUME):
            yield from _wrong(value, below, (*path, name))
        elif isinstance(value, Mapping):
            yield from _open_parts(value, below, (*path, name))


def _wrong(value: Any, shape: Any, path: tuple[str | int, ...]) -> Iterator[InvalidPart]:
    if isinstance(value, list):
        for place, one in enumerate(value):
            yield from _wrong(one, shape, (*path, place))
    elif isinstance(value, Mapping) and isinstance(shape, Mapping):
        known = {name.rstrip("!"): below for name, below in shape.items()}
        for name, below in value.items():
            if name not in known:
                yield InvalidPart("Name", (*path, name), tuple(known))
            else:
                yield from _wrong(below, known[name], (*path, name))
        needed = (name.removesuffix("!") for name in shape if name.endswith("!"))
        yield from (InvalidPart("Missing", (*path, name), ()) for name in needed if value.get(name) is None)
    elif isinstance(shape, Mapping) and value is not None:
        yield InvalidPart("NoFields", path, tuple(name.rstrip("!") for name in shape))
    elif shape == QUANTITY and isinstance(value, str) and amount(value) is None:
        yield InvalidPart("Quantity", path, ())
    elif isinstance(value, str) and isinstance(shape, tuple) and value not in shape:
        yield InvalidPart("Word", path, tuple(word for word in shape if word))
