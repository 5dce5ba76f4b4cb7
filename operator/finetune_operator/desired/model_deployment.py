"""The ModelDeployment that a FineTunedModel creates from its template."""

from finetune_api.manifest import Manifest
from finetune_api.model import FineTunedModelSpec
from finetune_api.names import API_VERSION, MODEL_LABEL
from finetune_operator.desired import names
from finetune_operator.desired.pod import labels, owner_reference


def build(owner: Manifest, spec: FineTunedModelSpec) -> Manifest:
    """A ModelDeployment with the model's name that follows the active version."""
    metadata = owner["metadata"]
    return {
        "apiVersion": API_VERSION,
        "kind": "ModelDeployment",
        "metadata": {
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "labels": labels(**{MODEL_LABEL: names.fit(metadata["name"])}),
            "ownerReferences": [owner_reference(owner)],
        },
        "spec": {**spec.deployment.template.wire(), "modelRef": {"name": metadata["name"]}, "version": "Active"},
    }
