"""The FineTunedModel that a job creates if its model does not exist. It outlives the job."""

from finetune_api.manifest import Manifest
from finetune_api.names import API_VERSION
from finetune_operator.desired.pod import labels


def build(namespace: str, name: str) -> Manifest:
    """A FineTunedModel with every default."""
    return {
        "apiVersion": API_VERSION,
        "kind": "FineTunedModel",
        "metadata": {"name": name, "namespace": namespace, "labels": labels()},
        "spec": {},
    }
