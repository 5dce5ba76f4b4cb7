"""A batch/v1 Job with what a connection adds to every pod. It is never made: the API server says whether it can be."""

from finetune_api.connection import CheckPod, HuggingFace
from finetune_api.manifest import Manifest
from finetune_api.names import COMPONENT_LABEL, TRAINER_CONTAINER
from finetune_operator.desired.pod import Volumes, batch_job, labels, pod_spec, queue_label, template_resources

_TEMPLATE = "spec.template"
_NOT_READ = "cannot be handled as a Job: "
"""Of what is no Job at all, such as one with a quantity that is none: of all that is in it, only the connection's words
are free."""


_ANY_IMAGE = "finetune-trainer-check"
"""Stands for the chart's image in a connection that names none: nothing is pulled."""


def build(namespace: str, connection: HuggingFace | CheckPod) -> Manifest:
    """The Job, as it would be in a namespace; without a name, so that none can be taken.

    Args:
        namespace: where its pod would be.
        connection: what the connection says of the pods that train here, or of those that check data for a provider.
    """
    volumes = Volumes()
    if isinstance(connection, HuggingFace):
        volumes.model_cache(connection)
        image = connection.trainer_image
    else:
        image = connection.image or _ANY_IMAGE
    own_labels = labels(**{COMPONENT_LABEL: "trial"})
    container = {
        "name": TRAINER_CONTAINER,
        "image": image,
        "resources": template_resources(connection),
    }
    metadata = {
        "generateName": "finetune-trial-",
        "namespace": namespace,
        "labels": own_labels | queue_label(connection),
    }
    return batch_job(metadata, connection, own_labels, pod_spec(connection, container, volumes))


def is_about_its_pod(refusal: str) -> bool:
    """Whether the API server means the connection's words, and not a rule of the namespace."""
    return _TEMPLATE in refusal or _NOT_READ in refusal
