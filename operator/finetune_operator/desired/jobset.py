"""The JobSet of one attempt on several nodes: one batch Job with a pod per node, which find each other by name.

JobSet (sigs.k8s.io/jobset) creates the Job and the Service that gives pods their names, and Kueue admits it as a whole.
Restarts are off: the operator starts the next attempt, since it knows why the last one ended.
"""

from finetune_api.connection import HuggingFace
from finetune_api.job import FineTuneJobSpec
from finetune_api.manifest import Manifest
from finetune_api.names import JOB_UID_LABEL, MADE_BY_LABEL, OWNER_ANNOTATION
from finetune_operator.desired import names, training_job

API_VERSION = "jobset.x-k8s.io/v1alpha2"
KIND = "JobSet"


def build(owner: Manifest, spec: FineTuneJobSpec, connection: HuggingFace, attempt: training_job.Attempt) -> Manifest:
    """The JobSet of an attempt. `spec.suspend` is not set: Kueue owns it."""
    own = training_job.own_labels(owner, spec, attempt)
    own |= {JOB_UID_LABEL: owner["metadata"]["uid"], MADE_BY_LABEL: training_job.made_by(connection)}
    job = training_job.job_spec(owner, spec, connection, attempt)
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": training_job.metadata(owner, spec, connection, attempt),
        "spec": {
            # Pods must resolve each other before they are ready: they become ready by connecting.
            "network": {"enableDNSHostnames": True, "publishNotReadyAddresses": True},
            "failurePolicy": {"maxRestarts": 0},
            "replicatedJobs": [
                {
                    "name": names.REPLICATED_JOB,
                    "replicas": 1,
                    "template": {
                        "metadata": {"labels": own, "annotations": {OWNER_ANNOTATION: owner["metadata"]["name"]}},
                        "spec": {**job, "completionMode": "Indexed"},
                    },
                }
            ],
        },
    }
