"""What the API server refuses in a pod is told by the connection's own field."""

from typing import Any

import pytest

from finetune_api.connection import LLMConnectionSpec
from finetune_api.deployment import ModelDeploymentSpec
from finetune_api.job_status import Failure
from finetune_api.reasons import Reason
from finetune_operator.decide.pods.field_paths import in_words_of, of_connection, of_deployment
from finetune_operator.desired import trial_job

LOCAL = {"trainerImage": "trainer:1", "artifacts": {"uri": "pvc://models"}}
DECODED = 'Job in version "v1" cannot be handled as a Job: '
STRICT = f'{DECODED}strict decoding error: unknown field "spec.template.spec.'
MISTYPED = f"{DECODED}json: cannot unmarshal string into Go struct field "
UNTYPED = "failed to create typed patch object (team-a/m; apps/v1, Kind=Deployment): "
INVALID = 'Job.batch "finetune-trial-x" is invalid: '


def of_template(**template: Any) -> LLMConnectionSpec:
    return LLMConnectionSpec.model_validate({"huggingFace": LOCAL | {"podTemplate": template}})


def of_cache(**volume: Any) -> LLMConnectionSpec:
    return LLMConnectionSpec.model_validate({"huggingFace": LOCAL | {"modelCache": {"volume": volume}}})


KEYY = of_template(tolerations=[{"keyy": "gpu"}])
CHECKED = {"openAI": {"apiKeySecretRef": {"name": "o", "key": "k"}}, "checkPod": {"podTemplate": {"tolerations": [{}]}}}
SAID = {
    "an unknown field of a toleration": (
        KEYY,
        f'{STRICT}tolerations[0].keyy"',
        'unknown field "spec.huggingFace.podTemplate.tolerations[0].keyy"; by keyy, did you mean key?',
    ),
    "a toleration of a check's pod": (
        LLMConnectionSpec.model_validate(CHECKED),
        f"{INVALID}spec.template.spec.tolerations[0].operator: Invalid value",
        "spec.checkPod.podTemplate.tolerations[0].operator: Invalid value",
    ),
    "a toleration of another type": (
        KEYY,
        f"{MISTYPED}Toleration.spec.template.spec.tolerations.tolerationSeconds of type int64",
        "spec.huggingFace.podTemplate.tolerations.tolerationSeconds: write a whole number, not a string",
    ),
    "an unknown volume": (
        of_cache(persistentVolumeClaims={"claimName": "cache"}),
        f'{STRICT}volumes[1].persistentVolumeClaims"',
        'unknown field "spec.huggingFace.modelCache.volume.persistentVolumeClaims"; by persistentVolumeClaims, did you '
        "mean persistentVolumeClaim?",
    ),
    "a volume that is a name": (
        of_cache(persistentVolumeClaim="cache"),
        f"{MISTYPED}Volume.spec.template.spec.volumes.persistentVolumeClaim of type v1.SomeSource",
        "spec.huggingFace.modelCache.volume.persistentVolumeClaim: write fields below it, not a string",
    ),
    "a volume that lacks a field, and its mount": (
        of_cache(nfs={"path": "/x"}),
        f"{INVALID}[spec.template.spec.volumes[1].nfs.server: Required value, "
        'spec.template.spec.containers[0].volumeMounts[1].name: Not found: "v1"]',
        "spec.huggingFace.modelCache.volume.nfs.server: Required value",
    ),
    "a label": (
        of_template(labels={"a b": "c"}),
        f'{INVALID}spec.template.labels: Invalid value: "a b"',
        'spec.huggingFace.podTemplate.labels: Invalid value: "a b"',
    ),
    "an amount": (
        of_template(resources={"requests": {"memry": "1Gi"}}),
        f'{INVALID}spec.template.spec.containers[0].resources.requests[memry]: Invalid value: "memry"',
        'spec.huggingFace.podTemplate.resources.requests[memry]: Invalid value: "memry"',
    ),
    "a request without its limit": (
        of_template(resources={"requests": {"nvidia.com/gpu": 1}}),
        f"{INVALID}spec.template.spec.containers[0].resources.limits: Required value: Limit must be set",
        "spec.huggingFace.podTemplate.resources.limits: Required value: Limit must be set",
    ),
    "amounts that do not go together": (
        of_template(resources={"limits": {"hugepages-2Mi": "4Mi"}}),
        f"{INVALID}spec.template.spec.containers[0].resources: Forbidden: HugePages require cpu or memory",
        "spec.huggingFace.podTemplate.resources: Forbidden: HugePages require cpu or memory",
    ),
    "a size that is none": (
        of_cache(emptyDir={"sizeLimit": "10gb"}),
        f"{DECODED}quantities must match the regular expression",
        "spec.huggingFace.modelCache.volume.emptyDir.sizeLimit: quantities must match the regular expression",
    ),
    "in a JobSet": (
        KEYY,
        'JobSet in version "v1alpha2" cannot be handled as a JobSet: strict decoding error: unknown field '
        '"spec.replicatedJobs[0].template.spec.template.spec.tolerations[0].keyy"',
        'unknown field "spec.huggingFace.podTemplate.tolerations[0].keyy"; by keyy, did you mean key?',
    ),
    "in a Deployment that is applied": (
        of_cache(emptydir={}),
        f'{UNTYPED}.spec.template.spec.volumes[name="v1"].emptydir: field not declared in schema',
        f"{UNTYPED}spec.huggingFace.modelCache.volume.emptydir: field not declared in schema; by emptydir, did you "
        "mean emptyDir?",
    ),
}


@pytest.mark.parametrize(("spec", "said", "expected"), SAID.values(), ids=SAID)
def test_a_refusal_is_told_by_the_field_of_the_connection(spec: LLMConnectionSpec, said: str, expected: str) -> None:
    assert in_words_of(spec, said) == expected


@pytest.mark.parametrize(
    "said",
    [
        "exceeded quota: spec.template",
        f"{INVALID}spec.template.spec.affinity: Invalid value",
        f"{INVALID}spec.template.spec.volumes[0].emptyDir.medium: Unsupported value",
        f"{INVALID}spec.template.spec.containers[0].resources.limits[memory]: Invalid value",
    ],
)
def test_what_the_connection_does_not_say_is_not_laid_at_its_door(said: str) -> None:
    """A policy of the cluster may have put it there."""
    failure = Failure.because(Reason.POD_REJECTED, said)
    assert of_connection(failure, "local", KEYY) == failure


def test_a_size_that_is_none_is_not_blamed_for_a_refusal_of_another_cause() -> None:
    failure = Failure.because(Reason.POD_REJECTED, "exceeded quota: pods, requested: pods=1, used: pods=5")
    assert of_connection(failure, "local", of_cache(emptyDir={"sizeLimit": "10gb"})) == failure


def test_a_job_names_the_connection_and_whom_to_ask() -> None:
    failure = Failure.because(Reason.POD_REJECTED, f'{STRICT}tolerations[0].keyy"')
    told = of_connection(failure, "local", KEYY)
    assert told.message.startswith('LLMConnection local: unknown field "spec.huggingFace.podTemplate.tolerations[0]')
    assert told.next_step is not None
    assert told.next_step.startswith("Ask an admin to correct the field")


def test_a_job_that_cannot_even_be_read_is_the_connections_fault() -> None:
    """The server names no field of a quantity that is none; all else in a trial is typed, or the operator's own."""
    assert trial_job.is_about_pod_settings(f"{DECODED}unable to parse quantity's suffix")
    assert not trial_job.is_about_pod_settings("admission webhook does not support dry run")


OF_HUGE_PAGES = "resources.limits[hugepages-2Mi]: Invalid value"
OF_A_SERVER = f'Deployment.apps "m" is invalid: spec.template.spec.containers[0].{OF_HUGE_PAGES}'


@pytest.mark.parametrize(
    ("resources", "message"),
    [({"limits": {"hugepages-2Mi": "3Mi"}}, f"spec.huggingFace.{OF_HUGE_PAGES}"), (None, OF_A_SERVER)],
)
def test_a_deployments_own_resources_are_its_own_to_correct(resources: Any, message: str) -> None:
    spec = {"modelRef": {"name": "m"}, "huggingFace": {"resources": resources}}
    failure = Failure.because(Reason.POD_REJECTED, OF_A_SERVER)
    told = of_deployment(failure, ModelDeploymentSpec.model_validate(spec))
    assert told.message == message
    assert told.next_step.startswith("Correct the field") is (resources is not None)
