"""What core/v1 of Kubernetes 1.34 has in those parts of a connection that its definition leaves to Kubernetes.

The API server of the cluster has the last word, and is asked. This is for words: which name was probably meant, and
what a connection's file lacks before it is applied anywhere.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

from finetune_api.quantities import amount

Shape = Mapping[str, Any]
"""Fields by name, those that have to be there with a `!`: below each its own, or the words that it takes, or None."""


class InvalidPart(NamedTuple):
    """One thing that does not fit."""

    what: Literal["Name", "Word", "Missing", "NoFields", "Quantity"]
    path: tuple[str | int, ...]
    known: tuple[str, ...]
    """Names that there are, words that are taken, or fields that belong below it."""

    @property
    def place(self) -> str:
        """The path as people write it."""
        return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in self.path).removeprefix(".")


def _fields(names: str, **below: Any) -> Shape:
    """Fields of that names; `below` are those of whose content something is known."""
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
    """What does not fit in the spec of a connection, as manifests write it, with its path there."""
    return _opened(spec, _CONNECTION, ("spec",))


def _opened(part: Mapping[str, Any], shape: Shape, path: tuple[str | int, ...]) -> Iterator[InvalidPart]:
    """The definition knows what else there is: only what it leaves open is looked into."""
    for name, below in shape.items():
        value = part.get(name)
        if below in (TOLERATION, AFFINITY, VOLUME):
            yield from _wrong(value, below, (*path, name))
        elif isinstance(value, Mapping):
            yield from _opened(value, below, (*path, name))


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
