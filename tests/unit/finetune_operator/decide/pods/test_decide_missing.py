"""A Secret, ConfigMap or claim that a pod lacks is told with the field that names it."""

from dataclasses import replace

import pytest

from finetune_api.job import FineTuneJobSpec
from finetune_api.job_status import Failure
from finetune_api.reasons import NEXT_STEP, Reason
from finetune_operator.decide.deployment.decision import decide as decide_deployment
from finetune_operator.decide.deployment.server_state import Serving
from finetune_operator.decide.job.steps import decide
from tests.unit.finetune_operator.decide.deployment.given_deployments import spec as deployment_spec
from tests.unit.finetune_operator.decide.deployment.given_deployments import view as deployment_view
from tests.unit.finetune_operator.decide.given import connection, job_spec, run, running, view

MOUNTING = 'MountVolume.SetUp failed for volume "code" : '
HUB = {"name": "hub", "key": "token"}
DATA = {"train": {"uri": "configmap://rows/a.csv"}, "secretRef": {"name": "keys"}}
CODE = {"configMapRef": {"name": "recipe", "key": "train.py"}}
RAG = {"name": "rag", "url": "https://rag.example.com/v1", "model": "m", "apiKeySecretRef": {"name": "rag", "key": "k"}}
SPEC = job_spec(
    hubTokenSecretRef=HUB,
    dataset=DATA | {"test": {"uri": "pvc://tests/a.csv"}},
    code=CODE,
    evaluation={"baselines": [{"zeroShot": {}}, {"endpoint": RAG}]},
)
CONNECTION = connection(
    {
        "modelCache": {"volume": {"persistentVolumeClaim": {"claimName": "cache"}}},
        "podTemplate": {
            "caBundleRef": {"name": "company-ca", "key": "ca.crt"},
            "serviceAccountName": "trainer",
            "priorityClassName": "batch",
            "runtimeClassName": "gvisor",
        },
    }
)


def told(message: str, **fields: object) -> str:
    waiting = run("Queued", failure=Failure.because(Reason.CONTAINER_CONFIG_INVALID, message))
    decision = decide(view(waiting, running(), **({"spec": SPEC, "connection": CONNECTION} | fields)))
    assert decision.status is not None
    assert decision.status.failure is not None
    facts = {one.type: one.message for one in decision.status.conditions}
    assert facts["Stalled"] == decision.status.failure.message
    return facts["Stalled"]


@pytest.mark.parametrize(
    ("message", "field"),
    [
        ('secret "hub" not found', "spec.hubTokenSecretRef"),
        ("couldn't find key token in Secret team-a/hub", "spec.hubTokenSecretRef"),
        ('secret "keys" not found', "spec.dataset.secretRef"),
        ('secret "rag" not found', "spec.evaluation.baselines[1].endpoint.apiKeySecretRef"),
        ('MountVolume.SetUp failed for volume "code" : configmap "recipe" not found', "spec.code.configMapRef"),
        ('configmap "rows" not found', "spec.dataset.train.uri"),
        ('persistentvolumeclaim "tests" not found', "spec.dataset.test.uri"),
        (
            'persistentvolumeclaim "cache" not found',
            "spec.huggingFace.modelCache.volume.persistentVolumeClaim.claimName of LLMConnection local",
        ),
        ('persistentvolumeclaim "models" not found', "spec.huggingFace.artifacts.uri of LLMConnection local"),
        ('configmap "company-ca" not found', "spec.huggingFace.podTemplate.caBundleRef of LLMConnection local"),
        (
            'its pod is forbidden: error looking up service account a/tr: serviceaccount "trainer" not found',
            "spec.huggingFace.podTemplate.serviceAccountName of LLMConnection local",
        ),
        (
            "its pod is forbidden: no PriorityClass with name batch was found",
            "spec.huggingFace.podTemplate.priorityClassName of LLMConnection local",
        ),
        (
            'its pod is forbidden: pod rejected: RuntimeClass "gvisor" not found',
            "spec.huggingFace.podTemplate.runtimeClassName of LLMConnection local",
        ),
    ],
)
def test_what_a_pod_lacks_is_told_with_its_field(message: str, field: str) -> None:
    assert told(message) == f"{field}: {message.removeprefix(MOUNTING)}"


@pytest.mark.parametrize("kind", ["secret", "config"])
def test_a_key_that_a_mounted_object_lacks_is_told_with_its_field(kind: str) -> None:
    """Of a volume the kubelet names the key alone."""
    message = f'MountVolume.SetUp failed for volume "v3" : references non-existent {kind} key: train.py'
    spec = job_spec(code=CODE, hubTokenSecretRef={"name": "hub", "key": "train.py"})
    field, named = (
        ("code.configMapRef", "ConfigMap recipe") if kind == "config" else ("hubTokenSecretRef", "Secret hub")
    )
    assert told(message, spec=spec) == f"spec.{field}: {named} has no key train.py"


def test_one_command_finds_all_that_is_missing() -> None:
    """The kubelet and the scheduler tell of the next object only when the one before has been made."""
    waiting = run("Queued", failure=Failure.because(Reason.CONTAINER_CONFIG_INVALID, 'secret "hub" not found'))
    failure = decide(view(waiting, running(), spec=SPEC, connection=CONNECTION)).status.failure
    assert failure is not None
    assert failure.next_step == (
        f"{NEXT_STEP[Reason.CONTAINER_CONFIG_INVALID]} What else is missing: kubectl -n {view(waiting).namespace} get "
        "configmap/rows pvc/tests secret/keys configmap/recipe secret/rag secret/hub serviceaccount/trainer "
        "configmap/company-ca pvc/cache pvc/models"
    )


def test_an_image_that_is_not_pulled_tells_how_to_look_for_its_keys() -> None:
    """The kubelet says of a pull secret that is not there only that the image may not be pulled."""
    private = connection({"podTemplate": {"imagePullSecrets": [{"name": "regcred"}, {"name": "mirror"}]}})
    for local, said in ((private, " get secret/regcred secret/mirror"), (CONNECTION, "pull secret.")):
        waiting = run("Queued", failure=Failure.because(Reason.IMAGE_PULL_FAILED, "not found"))
        failure = decide(view(waiting, running(), spec=SPEC, connection=local)).status.failure
        assert failure is not None
        assert (failure.next_step or "").endswith(said)


def of_long_names() -> FineTuneJobSpec:
    keyed = [RAG | {"name": f"e{n}", "apiKeySecretRef": {"name": f"{n}" * 250, "key": "k"}} for n in range(4)]
    return job_spec(evaluation={"baselines": [{"endpoint": one} for one in keyed]}, hubTokenSecretRef=HUB)


@pytest.mark.parametrize(
    ("message", "spec"),
    [('secret "hub" not found', of_long_names()), ("exec: train: not found", SPEC)],
    ids=["too long to be told", "nothing is missing"],
)
def test_the_command_is_left_out_where_it_does_not_help(message: str, spec: FineTuneJobSpec) -> None:
    waiting = run("Queued", failure=Failure.because(Reason.CONTAINER_CONFIG_INVALID, message))
    failure = decide(view(waiting, running(), spec=spec, connection=CONNECTION)).status.failure
    assert failure is not None
    assert failure.next_step == NEXT_STEP[Reason.CONTAINER_CONFIG_INVALID]


def test_all_fields_that_name_it_are_told() -> None:
    spec = job_spec(dataset={split: {"uri": f"pvc://data/{split}.csv"} for split in ("train", "test")})
    message = 'persistentvolumeclaim "data" not found'
    assert told(message, spec=spec) == f"spec.dataset.train.uri, spec.dataset.test.uri: {message}"


@pytest.mark.parametrize("message", ['secret "local" not found', 'configmap "hub" not found', "no such file"])
def test_what_no_field_names_is_told_as_it_is(message: str) -> None:
    """A name is of one kind only: `local` is the connection's, and `hub` a Secret's."""
    assert told(message) == message


def test_a_server_that_lacks_its_key_says_so_by_the_field() -> None:
    message = 'MountVolume.SetUp failed for volume "v3" : secret "nowhere" not found'
    failing = Serving("Failing", 2, 0, Failure.because(Reason.CONTAINER_CONFIG_INVALID, message))
    keyed = deployment_spec(apiKeySecretRef={"name": "nowhere", "key": "k"})
    ready = decide_deployment(deployment_view(failing, spec=keyed)).status.conditions[0]
    assert 'version 2 cannot be served: spec.apiKeySecretRef: secret "nowhere" not found' in ready.message


def test_a_server_that_lacks_what_its_connection_names_says_so_and_how_to_look_for_the_rest() -> None:
    message = 'persistentvolumeclaim "cache" not found'
    failing = Serving("Failing", 2, 0, Failure.because(Reason.CONTAINER_CONFIG_INVALID, message))
    seen = deployment_view(failing, spec=deployment_spec(apiKeySecretRef={"name": "keys", "key": "k"}))
    name = decide_deployment(seen).serve.connection  # type: ignore[union-attr]
    told = decide_deployment(replace(seen, connections={name: CONNECTION})).status.conditions[0].message
    field = f"spec.huggingFace.modelCache.volume.persistentVolumeClaim.claimName of LLMConnection {name}"
    assert f"version 2 cannot be served: {field}: {message}. Create the Secret, ConfigMap or volume that" in told
    assert f"What else is missing: kubectl -n {seen.namespace} get secret/keys serviceaccount/trainer" in told


def test_without_a_connection_only_the_job_is_looked_through() -> None:
    message = 'persistentvolumeclaim "models" not found'
    assert told(message, connection=None) == message
