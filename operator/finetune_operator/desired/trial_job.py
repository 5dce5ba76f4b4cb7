"""A batch/v1 Job with what a connection adds to every pod. It is never made: the API server says whether it can be."""

from finetune_api.connection import HuggingFace
from finetune_api.manifest import Manifest
from finetune_api.names import COMPONENT_LABEL, TRAINER_CONTAINER
from finetune_operator.desired.pod import (
    Volumes,
    labels,
    pod_metadata,
    pod_spec,
    queue_label,
    template_resources,
)

TEMPLATE = "spec.template"
"""Where in it the connection's words are: a refusal that names no field below is not about them."""


def build(namespace: str, connection: HuggingFace) -> Manifest:
    """The Job, as it would be in a namespace; without a name, so that none can be taken."""
    volumes = Volumes()
    volumes.model_cache(connection)
    own_labels = labels(**{COMPONENT_LABEL: "trial"})
    container = {
        "name": TRAINER_CONTAINER,
        "image": connection.trainer_image,
        "resources": template_resources(connection),
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "generateName": "finetune-trial-",
            "namespace": namespace,
            "labels": own_labels | queue_label(connection),
        },
        "spec": {
            "template": {
                "metadata": pod_metadata(connection, own_labels),
                "spec": pod_spec(connection, container, volumes) | {"restartPolicy": "Never"},
            },
        },
    }
