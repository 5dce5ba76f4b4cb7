"""A batch/v1 Job with a connection's pod settings, for a dry run: the API server says whether it is valid."""

from finetune_api.connection import CheckPod, HuggingFace
from finetune_api.manifest import Manifest
from finetune_api.names import COMPONENT_LABEL, TRAINER_CONTAINER
from finetune_operator.desired.pod import Volumes, batch_job, labels, pod_spec, queue_label, template_resources

_TEMPLATE = "spec.template"
_NOT_READ = "cannot be handled as a Job: "
"""In the API server's error if it cannot parse the Job, for example because of an invalid quantity. Only the
connection's fields are free text, so these must be the cause."""

_ANY_IMAGE = "finetune-trainer-check"
"""Placeholder for the chart's image if the connection names none: nothing is pulled."""


def build(namespace: str, connection: HuggingFace | CheckPod) -> Manifest:
    """The Job for a namespace, with a generated name, so that it cannot conflict.

    Args:
        namespace: of the Job.
        connection: the settings of training pods, or of check pods for a provider.
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


def is_about_pod_settings(refusal: str) -> bool:
    """Whether the API server's error is about the connection's fields, and not about a policy of the namespace."""
    return _TEMPLATE in refusal or _NOT_READ in refusal
