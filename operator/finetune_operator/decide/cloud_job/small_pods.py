"""Failure messages for the small pods of a job at a provider. They do not train, and only an admin can give them more.

They check and upload data, or send the test set to a model. Decisions about them are those about any pod.
"""

import re
from dataclasses import replace

from finetune_api.job_status import Failure
from finetune_api.reasons import Reason
from finetune_operator.decide.job.run import Run
from finetune_operator.decide.pods import image_pull

_WORDS = {"the training pod": "the pod", "the trainer": "the pod", ", before its first training step": ""}
_TEMPLATE = re.compile(r"((huggingFace|checkPod)\.)?podTemplate")
_RESOURCES = "checkPod.podTemplate.resources of the connection"
_OF_A_JOB = "spec.resources"
_BY_AN_ADMIN = f"Ask an admin to let {_RESOURCES} ask for what the message says. It is retried automatically."
"""Replaces a next step that names spec.resources, which such a job cannot set."""
_STEPS = {
    Reason.OUT_OF_MEMORY: f"Ask an admin for more memory in {_RESOURCES}; then set spec.retryNonce where the job has "
    "failed.",
    Reason.IMAGE_PULL_FAILED: "Ask an admin to check the image (checkPod.image of the connection, else checkImage of "
    "the chart's values) and its pull secret. The job continues automatically once they are right.",
    Reason.EVICTED: f"Ask an admin to have {_RESOURCES} name as much memory and ephemeral-storage as the pod uses; "
    "then set spec.retryNonce where the job has failed.",
}


def of_small_pod(run: Run) -> Run:
    """The same run, with its failure worded for such a pod."""
    return run if run.failure is None else replace(run, failure=worded_for_small_pod(run.failure))


def worded_for_small_pod(failure: Failure) -> Failure:
    """The same failure, without words that fit only a training pod."""
    message = failure.message
    for words, ours in _WORDS.items():
        message = message.replace(words, ours)
    known = failure.reason is Reason.IMAGE_PULL_FAILED and image_pull.step(message) is not None
    general = None if known else _STEPS.get(failure.reason)
    step = general or _TEMPLATE.sub("checkPod.podTemplate", failure.next_step or "")
    return failure.model_copy(
        update={"message": message, "next_step": _BY_AN_ADMIN if _OF_A_JOB in step else step or None}
    )
