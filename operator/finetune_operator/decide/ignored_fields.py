"""Finds what is valid in an object but has no effect, to report it in an Event. Pure.

What a provider would ignore is refused (`cloud_policy`). This covers what a CRD cannot see and what may take effect
later: annotations, and fields that another field overrides.
"""

from collections.abc import Iterable, Iterator, Mapping

from finetune_api.aws import SageMakerSpot
from finetune_api.connection import LLMConnectionSpec
from finetune_api.deployment import DeploymentTemplate, ModelDeploymentSpec
from finetune_api.evaluation import Evaluation
from finetune_api.job import ArtifactOptions, FineTuneJobSpec, Hyperparameters, Resources
from finetune_api.model import FineTunedModelSpec
from finetune_api.names import (
    ABANDON_ANNOTATION,
    BEGUN_ANNOTATION,
    DIGEST_ANNOTATION,
    GROUP,
    QUEUE_LABEL,
    WAKE_ANNOTATION,
    is_own_label,
)
from finetune_api.without_effect import fields_without_effect
from finetune_operator.decide.omitted_fields import left_out

EVENT = "NoEffect"
_SHOWN = 32
"""How many characters of a value are repeated."""

Connection = LLMConnectionSpec | None


def of_job(
    spec: FineTuneJobSpec,
    annotations: Mapping[str, str],
    connection: Connection,
    *,
    labels: Iterable[str] = (),
    asked_again: bool = False,
) -> list[str]:
    """Sentences, each beginning with the field.

    Args:
        spec: of the job.
        annotations: of the job.
        connection: of the job, if it exists.
        labels: names of the job's labels.
        asked_again: whether retryNonce has changed while the job is under way.
    """
    found = [
        *left_out(annotations, FineTuneJobSpec),
        *_annotations("FineTuneJob", annotations, (ABANDON_ANNOTATION,), connection),
        *_of_job(spec, connection),
    ]
    if QUEUE_LABEL in labels:
        found.append(f"metadata.labels: {QUEUE_LABEL}: a job waits in the queue of its connection alone (queueName)")
    if asked_again:
        found.append(
            "spec.retryNonce: it starts failed jobs again, and this one has not failed; if its trainer hangs, delete "
            "the pod, and if it fails, set another value then"
        )
    return found


def _of_job(spec: FineTuneJobSpec, connection: Connection) -> Iterator[str]:
    if spec.adopt is not None:
        yield from (
            f"spec.{field}: the job of adopt.jobID was made elsewhere, and is only observed"
            for field in _set_fields(spec)
        )
        return
    yield from fields_without_effect(spec, connection)


def _set_fields(spec: FineTuneJobSpec) -> Iterator[str]:
    """The fields about how a job is created, paid and ended, except those at their defaults."""
    fields = {
        "lora": spec.lora is not None,
        "preference": spec.preference is not None,
        "hyperparameters": spec.hyperparameters != Hyperparameters(),
        "resources": spec.resources != Resources(),
        "artifact": spec.artifact != ArtifactOptions(),
        "code": spec.code is not None,
        "evaluation": spec.evaluation != Evaluation(),
        "budget": spec.budget is not None,
        "suspend": spec.suspend,
        "activeDeadlineSeconds": spec.active_deadline_seconds is not None,
        "dataset.secretRef": spec.dataset.secret_ref is not None,
        "hubTokenSecretRef": spec.hub_token_secret_ref is not None,
    }
    return (field for field, is_asked in fields.items() if is_asked)


def of_model(spec: FineTunedModelSpec, annotations: Mapping[str, str]) -> list[str]:
    """Sentences, each beginning with the field."""
    found = [
        *left_out(annotations, FineTunedModelSpec),
        *_annotations("FineTunedModel", annotations, (ABANDON_ANNOTATION,)),
    ]
    if spec.deployment.mode == "Manual" and spec.deployment.template != DeploymentTemplate():
        found.append("spec.deployment.template: with mode Manual no deployment is made of it")
    return found


def of_deployment(spec: ModelDeploymentSpec, annotations: Mapping[str, str], connection: Connection) -> list[str]:
    """Sentences, each beginning with the field. `connection`: of the version, if known."""
    known = (ABANDON_ANNOTATION, WAKE_ANNOTATION)
    found = [
        *left_out(annotations, ModelDeploymentSpec),
        *_annotations("ModelDeployment", annotations, known, connection),
    ]
    alone = connection is not None and connection.open_ai is not None
    if spec.retry_nonce is not None and (alone or _is_here(connection)):
        found.append("spec.retryNonce: it deploys again what is at a provider, where this has no deployment")
    if spec.idle is not None and alone:
        found.append("spec.idle: the provider serves without a deployment, so nothing can be idle")
    if WAKE_ANNOTATION in annotations and alone:
        found.append(f"metadata.annotations: {WAKE_ANNOTATION}: the provider serves without a deployment to be woken")
    return found


def of_connection(spec: LLMConnectionSpec, annotations: Mapping[str, str]) -> list[str]:
    """Sentences, each beginning with the field."""
    found = [
        *left_out(annotations, LLMConnectionSpec),
        *_annotations("LLMConnection", annotations, ()),
        *_labels_of_pods(spec),
    ]
    if spec.fine_tuning.allow_code and spec.hugging_face is None and spec.sage_maker is None:
        found.append(f"spec.fineTuning.allowCode: {spec.provider} runs no custom code")
    spot = spec.sage_maker.spot if spec.sage_maker else SageMakerSpot()
    if not spot.enabled and spot != SageMakerSpot():
        found.append("spec.sageMaker.spot.maxWaitSeconds: nothing waits for spot instances without spot.enabled: true")
    return found


def _labels_of_pods(spec: LLMConnectionSpec) -> Iterator[str]:
    """Labels that only the operator may set."""
    templates = {
        "huggingFace": spec.hugging_face.pod_template if spec.hugging_face else None,
        "checkPod": spec.check_pod.pod_template if spec.check_pod else None,
    }
    for block, template in templates.items():
        for name in filter(is_own_label, (template.labels if template else None) or ()):
            yield f"spec.{block}.podTemplate.labels: {name} is the operator's own label, and is left out of the pods"


def _annotations(
    kind: str, annotations: Mapping[str, str], known: Iterable[str], connection: Connection = None
) -> Iterator[str]:
    """Annotations of our group that this kind does not use, or whose value has no effect."""
    for name, value in annotations.items():
        if not name.startswith(f"{GROUP}/") or name in {DIGEST_ANNOTATION, BEGUN_ANNOTATION}:
            continue
        if name not in known:
            there = f" (there {'are' if len(list(known)) > 1 else 'is'} {', '.join(known)})" if known else ""
            yield f"metadata.annotations: {name[:64]} means nothing to a {kind}{there}"
        elif name == ABANDON_ANNOTATION and value != "true":
            yield f'metadata.annotations: {name} is "{value[:_SHOWN]}", and only "true" lets the object go'
        elif name == ABANDON_ANNOTATION and _is_here(connection):
            yield f"metadata.annotations: {name}: this {kind} has nothing at a provider to release"


def _is_here(connection: Connection) -> bool:
    return connection is not None and connection.hugging_face is not None
