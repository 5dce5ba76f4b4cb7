"""Describes an artifact for an OCI registry: as a model according to ModelPack (CNCF), each file an unpacked layer.

Everything follows from the files, so that the same artifact always has the same digest. Files with rows of the data are
left out: who may pull a model is not always allowed to read its data.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_api.names import MANIFEST

IMAGE_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
UNPUSHED = ("evaluation.jsonl", "report.html")
"""Files of an artifact that quote the data."""

_MODEL = "application/vnd.cncf.model"
_DOCUMENTS = ("README.md", "loss.svg", "metrics.jsonl", "dataset.json", "result.json")


@dataclass(frozen=True)
class Layer:
    """One file."""

    name: str
    digest: str
    size: int
    content: Path | bytes

    def descriptor(self) -> dict[str, Any]:
        """The descriptor for the manifest; annotations also name the file for clients that do not know models."""
        kind = "weight" if self.name.endswith(".safetensors") else "weight.config"
        annotations = {"org.opencontainers.image.title": self.name, "org.cncf.model.filepath": self.name}
        return {
            "mediaType": f"{_MODEL}.{'doc' if self.name in _DOCUMENTS else kind}.v1.raw",
            "digest": self.digest,
            "size": self.size,
            "annotations": annotations,
        }


@dataclass(frozen=True)
class Packed:
    """A model in a registry's format."""

    layers: list[Layer]
    config: bytes
    manifest: bytes


def pushed_manifest(folder: Path) -> bytes:
    """The artifact's own manifest without the files that are not pushed."""
    about = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    about["files"] = {name: entry for name, entry in about["files"].items() if name not in UNPUSHED}
    return json.dumps(about, indent=2).encode() + b"\n"


def pack(folder: Path) -> Packed:
    """Describe the complete artifact in `folder`."""
    own = pushed_manifest(folder)
    about = json.loads(own)
    layers = [
        Layer(name, f"sha256:{entry['sha256']}", entry["bytes"], folder / name)
        for name, entry in sorted(about["files"].items())
    ]
    layers.append(Layer(MANIFEST, digest_of(own), len(own), own))
    config = _json(_config(about, layers))
    return Packed(layers, config, _json(_manifest(about, layers, config)))


def digest_of(content: bytes) -> str:
    """In the registry's format, sha256:HEX."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _config(about: dict[str, Any], layers: list[Layer]) -> dict[str, Any]:
    return {
        "descriptor": {
            "name": f"{about['job']['namespace']}/{about['job']['name']}",
            "createdAt": about["created"],
            "description": f"{about['baseModel']}, tuned with {about['method']}",
        },
        "config": {"architecture": "transformer", "format": "safetensors"},
        "modelfs": {"type": "layers", "diffIds": [layer.digest for layer in layers]},
    }


def _manifest(about: dict[str, Any], layers: list[Layer], config: bytes) -> dict[str, Any]:
    return {
        "schemaVersion": 2,
        "mediaType": IMAGE_MANIFEST,
        "artifactType": f"{_MODEL}.manifest.v1+json",
        "config": {"mediaType": f"{_MODEL}.config.v1+json", "digest": digest_of(config), "size": len(config)},
        "layers": [layer.descriptor() for layer in layers],
        "annotations": {
            "org.opencontainers.image.created": about["created"],
            "org.opencontainers.image.base.name": about["baseModel"],
        },
    }


def _json(said: dict[str, Any]) -> bytes:
    return json.dumps(said, sort_keys=True).encode()
