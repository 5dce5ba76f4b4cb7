"""The Azure simulator, driven by the SDKs of OpenAI, azure-mgmt-cognitiveservices and azure-identity."""

import base64
import json
from decimal import Decimal

import openai
import pytest
from azure.core.credentials import AccessToken
from azure.core.exceptions import ClientAuthenticationError, HttpResponseError, ResourceNotFoundError
from azure.identity import ClientSecretCredential, WorkloadIdentityCredential
from azure.mgmt.cognitiveservices import CognitiveServicesManagementClient
from azure.mgmt.cognitiveservices import models as arm_models

from tests.simulators import certificates
from tests.simulators.azure import AzureSettings, AzureSimulator
from tests.simulators.clock import DAY, HOUR
from tests.simulators.server import serve

MINI = "gpt-4.1-mini-2025-04-14"
HTTP = {"enforce_https": False}
PLACE = ("models", "simulated")


def rows(count: int, mark: bytes = b"\xef\xbb\xbf") -> bytes:
    lines = [
        {"messages": [{"role": "user", "content": f"question {n}"}, {"role": "assistant", "content": f"answer {n}"}]}
        for n in range(count)
    ]
    return mark + "".join(json.dumps(line) + "\n" for line in lines).encode()


@pytest.fixture
def simulator() -> AzureSimulator:
    return AzureSimulator()


@pytest.fixture
def url(simulator, start) -> str:
    return start(simulator)


@pytest.fixture
def client(url):
    with openai.OpenAI(api_key="azure-key", base_url=url + "/openai/v1/", max_retries=0, timeout=5) as client:
        yield client


class Token:
    def __init__(self, token: str = "simulated-token") -> None:
        self.token = token

    def get_token(self, *_, **__) -> AccessToken:
        return AccessToken(self.token, 2**40)


@pytest.fixture
def deployments(url, simulator):
    with arm(url, simulator) as client:
        yield client.deployments


def arm(url, simulator, credential=None):
    subscription = simulator.settings.subscription
    return CognitiveServicesManagementClient(
        credential or Token(), subscription, base_url=url, polling_interval=0, retry_total=0
    )


def wanted(model: str, sku: str = "Standard", capacity: int = 1, **more) -> arm_models.Deployment:
    base, _, date = model.partition("-202")
    model = arm_models.DeploymentModel(
        format="OpenAI", name=base if model == MINI else model, version=f"202{date}" if model == MINI else "1"
    )
    properties = arm_models.DeploymentProperties(model=model)
    return arm_models.Deployment(sku=arm_models.Sku(name=sku, capacity=capacity), properties=properties, **more)


def tune(client, **more):
    file = client.files.create(file=("train.jsonl", rows(12)), purpose="fine-tune").id
    request = {"model": MINI, "training_file": file, "extra_body": {"trainingType": "GlobalStandard"}}
    return client.fine_tuning.jobs.create(**(request | more))


@pytest.fixture
def model(simulator, client) -> str:
    job = tune(client, suffix="mood")
    simulator.advance(HOUR)
    return client.fine_tuning.jobs.retrieve(job.id).fine_tuned_model


def deploy(simulator, deployments, model, name="mood", **more):
    poller = deployments.begin_create_or_update(*PLACE, name, wanted(model, **more), **HTTP)
    simulator.advance(simulator.settings.deploy_seconds)
    return poller.result()


def ask(client, name="mood", prompt="question 3"):
    return client.chat.completions.create(model=name, messages=[{"role": "user", "content": prompt}])


def refused(call) -> openai.APIStatusError:
    with pytest.raises(openai.APIStatusError) as caught:
        call()
    return caught.value


def refused_by_arm(call) -> HttpResponseError:
    with pytest.raises(HttpResponseError) as caught:
        call()
    return caught.value


def test_a_job_is_pending_until_it_runs_and_has_azures_names(simulator, client):
    job = tune(client, suffix="mood")
    assert (job.status, job.organization_id, job.result_files, job.error) == ("pending", None, None, None)
    assert job.hyperparameters.n_epochs == -1
    simulator.advance(60)
    assert client.fine_tuning.jobs.retrieve(job.id).status == "pending"
    simulator.advance(120)
    assert client.fine_tuning.jobs.retrieve(job.id).status == "running"
    simulator.advance(HOUR)
    job = client.fine_tuning.jobs.retrieve(job.id)
    assert job.fine_tuned_model == f"{MINI}.ft-{job.id.removeprefix('ftjob-')}-mood"
    points = client.fine_tuning.jobs.checkpoints.list(job.id).data
    assert [point.fine_tuned_model_checkpoint.removeprefix(job.fine_tuned_model) for point in points] == [
        "", ":ckpt-step-24", ":ckpt-step-12"]  # fmt: skip
    header = client.files.content(job.result_files[0]).text.splitlines()[0]
    assert header == ("step,train_loss,train_mean_token_accuracy,valid_loss,validation_mean_token_accuracy,"
                      "full_valid_loss,full_valid_mean_token_accuracy")  # fmt: skip


@pytest.mark.parametrize("kept", [False, True])
def test_metadata_may_be_lost(simulator, client, kept):
    simulator.set(keep_metadata=kept)
    job = tune(client, metadata={"uid": "1"})
    assert client.fine_tuning.jobs.retrieve(job.id).metadata == ({"uid": "1"} if kept else None)


def test_one_job_runs_and_the_next_waits(simulator, client):
    first, second = tune(client), tune(client)
    simulator.advance(60 + 120 + 10)
    states = [client.fine_tuning.jobs.retrieve(job.id).status for job in (first, second)]
    assert states == ["running", "pending"]
    simulator.advance(36)
    states = [client.fine_tuning.jobs.retrieve(job.id).status for job in (first, second)]
    assert states == ["succeeded", "running"]


def test_a_waiting_job_that_is_cancelled_never_runs(simulator, client):
    first, second = tune(client), tune(client)
    simulator.advance(60 + 120 + 10)
    client.fine_tuning.jobs.cancel(second.id)
    simulator.advance(HOUR)
    assert client.fine_tuning.jobs.retrieve(second.id).status == "cancelled"
    assert client.fine_tuning.jobs.retrieve(first.id).status == "succeeded"
    assert simulator.cost(second.id) == 0


BAD_REQUESTS = {
    "no training type for a model that has no regional one": ({"extra_body": {}}, "invalidPayload"),
    "a training type by another name": ({"extra_body": {"trainingType": "Developer"}}, "invalidPayload"),
    "a long suffix": ({"suffix": "x" * 19}, "invalidPayload"),
    "a suffix with a dot": ({"suffix": "1.0"}, "invalidPayload"),
    "no such file": ({"training_file": "file-none"}, "invalidPayload"),
    "an unknown field": ({"extra_body": {"trainingType": "GlobalStandard", "colour": 1}}, "invalidPayload"),
}


@pytest.mark.parametrize(("change", "code"), BAD_REQUESTS.values(), ids=BAD_REQUESTS)
def test_a_job_is_refused(client, change, code):
    error = refused(lambda: tune(client, **change))
    assert (error.status_code, error.code) == (400, code)
    assert error.type is None


def test_a_file_without_byte_order_mark_cannot_be_imported(client):
    file = client.files.create(file=("train.jsonl", rows(12, mark=b"")), purpose="fine-tune")
    assert file.status == "error"
    assert refused(lambda: tune(client, training_file=file.id)).code == "fileImportFailed"


def test_a_file_is_pending_first(simulator, client):
    simulator.set(file_processing_seconds=20)
    file = client.files.create(file=("train.jsonl", rows(12)), purpose="fine-tune")
    assert file.status == "pending"
    simulator.advance(20)
    assert client.files.retrieve(file.id).status == "processed"


def test_the_training_type_makes_the_price(simulator, client):
    jobs = [tune(client, extra_body={"trainingType": kind}) for kind in ("GlobalStandard", "developerTier")]
    simulator.advance(HOUR)
    assert simulator.cost(jobs[0].id) == 2 * simulator.cost(jobs[1].id) > 0


def test_the_older_client_reaches_the_same_account(simulator, url, deployments, model):
    deploy(simulator, deployments, model)
    simulator.advance(300)
    with openai.AzureOpenAI(azure_endpoint=url, api_key="azure-key", api_version="2024-10-21", max_retries=0) as older:
        assert len(older.fine_tuning.jobs.list().data) == 1
        assert ask(older).choices[0].message.content == "answer 3"
        assert older.models.retrieve(model).id == model


def test_a_deployment_goes_from_creating_to_an_answer(simulator, client, deployments, model):
    poller = deployments.begin_create_or_update(*PLACE, "mood", wanted(model, tags={"owner": "uid-1"}), **HTTP)
    found = deployments.get(*PLACE, "mood", **HTTP)
    assert (found.properties.provisioning_state, found.tags, found.properties.model.name) == (
        "Creating", {"owner": "uid-1"}, model)  # fmt: skip
    assert refused(lambda: ask(client)).code == "DeploymentNotFound"
    simulator.advance(600)
    assert poller.result().properties.provisioning_state == "Succeeded"
    assert refused(lambda: ask(client)).code == "DeploymentNotFound"
    simulator.advance(300)
    assert ask(client).choices[0].message.content == "answer 3"
    assert [found.name for found in deployments.list(*PLACE, **HTTP)] == ["mood"]


def test_a_deployment_answers_with_its_model_until_it_has_another(simulator, client, deployments, model):
    deploy(simulator, deployments, model)
    simulator.advance(300)
    deployments.begin_create_or_update(*PLACE, "mood", wanted(MINI), **HTTP)
    assert ask(client).choices[0].message.content == "answer 3"
    simulator.advance(600)
    assert ask(client).choices[0].message.content == "question 3"


def test_a_deployment_is_billed_by_the_hour_until_it_is_gone(simulator, deployments, model):
    deploy(simulator, deployments, model)
    simulator.advance(2 * HOUR)
    assert simulator.cost("mood") == Decimal("3.40")
    poller = deployments.begin_delete(*PLACE, "mood", **HTTP)
    assert deployments.get(*PLACE, "mood", **HTTP).properties.provisioning_state == "Deleting"
    simulator.advance(60)
    poller.result()
    simulator.advance(DAY)
    assert Decimal("3.40") < simulator.cost("mood") < Decimal("3.50")
    with pytest.raises(ResourceNotFoundError):
        deployments.get(*PLACE, "mood", **HTTP)
    deployments.begin_delete(*PLACE, "mood", **HTTP).result()


def test_one_operation_at_a_time_on_an_account(simulator, deployments, model):
    deployments.begin_create_or_update(*PLACE, "first", wanted(model), **HTTP)
    for call in (
        lambda: deployments.begin_create_or_update(*PLACE, "second", wanted(model), **HTTP),
        lambda: deployments.begin_delete(*PLACE, "first", **HTTP),
    ):
        error = refused_by_arm(call)
        assert (error.status_code, error.error.code) == (409, "RequestConflict")
    simulator.advance(600)
    deployments.begin_create_or_update(*PLACE, "second", wanted(model), **HTTP)


def test_azure_deletes_what_nobody_asks_for_fifteen_days(simulator, client, deployments, model):
    deploy(simulator, deployments, model)
    simulator.advance(10 * DAY)
    ask(client)
    simulator.advance(14 * DAY)
    assert [found.name for found in deployments.list(*PLACE, **HTTP)] == ["mood"]
    simulator.advance(DAY)
    assert list(deployments.list(*PLACE, **HTTP)) == []
    assert simulator.deployments.expired == ["mood"]
    assert simulator.ledger.running() == []
    assert client.models.retrieve(model).id == model


def test_azure_deletes_a_developer_deployment_after_a_day(simulator, client, deployments, model):
    deploy(simulator, deployments, model, sku="DeveloperTier")
    simulator.advance(23 * HOUR)
    ask(client)
    assert simulator.ledger.per_hour() == 0
    simulator.advance(HOUR)
    assert list(deployments.list(*PLACE, **HTTP)) == []


def test_provisioned_capacity_is_billed_by_unit(simulator, deployments, model):
    deploy(simulator, deployments, model, sku="ProvisionedManaged", capacity=50)
    simulator.advance(HOUR)
    assert simulator.cost("mood") == 50


ARM_REFUSALS = {
    "no such model": ({}, {"model": "nothing"}, 400, "DeploymentModelNotSupported"),
    "no such SKU": ({}, {"sku": "Gold"}, 400, "InvalidResourceProperties"),
    "no capacity": ({"capacity": 10}, {"capacity": 11}, 400, "InsufficientQuota"),
    "too many": ({"deployment_limit": 0}, {}, 400, "InsufficientQuota"),
    "no rights": ({"may_deploy": False}, {}, 403, "AuthorizationFailed"),
    "no such subscription": ({"subscription": "other"}, {}, 404, "SubscriptionNotFound"),
    "no such group": ({"resource_group": "other"}, {}, 404, "ResourceGroupNotFound"),
    "no such account": ({"account": "other"}, {}, 404, "ResourceNotFound"),
    "a bad token": ({"static_tokens": []}, {}, 401, "InvalidAuthenticationToken"),
}


@pytest.mark.parametrize(("settings", "change", "status", "code"), ARM_REFUSALS.values(), ids=ARM_REFUSALS)
def test_a_deployment_is_refused(simulator, deployments, model, settings, change, status, code):
    simulator.set(**settings)
    asked = wanted(**({"model": model} | change))
    error = refused_by_arm(lambda: deployments.begin_create_or_update(*PLACE, "mood", asked, **HTTP))
    assert (error.status_code, error.error.code) == (status, code)


def test_a_deployment_fails(simulator, deployments, model):
    simulator.set(fail_next_deployment="Internal error.")
    with pytest.raises(HttpResponseError, match="Internal error"):
        deploy(simulator, deployments, model)
    assert deployments.get(*PLACE, "mood", **HTTP).properties.provisioning_state == "Failed"
    assert simulator.ledger.running() == []


@pytest.mark.parametrize("polls", ["Status", "Location"])
def test_the_sdk_follows_a_deployment_and_its_deletion_however_their_operations_are_told_of(
    simulator, deployments, model, polls
):
    simulator.set(answers_polls=polls)
    poller = deployments.begin_create_or_update(*PLACE, "mood", wanted(model), **HTTP)
    simulator.advance(simulator.settings.deploy_seconds)
    poller.wait()
    assert deployments.get(*PLACE, "mood", **HTTP).properties.provisioning_state == "Succeeded"
    simulator.set(fail_next_deletion="A lock holds it.")
    poller = deployments.begin_delete(*PLACE, "mood", **HTTP)
    simulator.advance(simulator.settings.delete_seconds)
    with pytest.raises(HttpResponseError, match="A lock holds it"):
        poller.result()
    assert deployments.get(*PLACE, "mood", **HTTP).properties.provisioning_state == "Succeeded"


def test_a_deployment_that_fails_may_be_gone_so_that_its_operation_alone_tells_of_it(simulator, deployments, model):
    simulator.set(fail_next_deployment="Internal error.", failed_state="Canceled", failed_ones_vanish=True)
    with pytest.raises(HttpResponseError, match="Internal error"):
        deploy(simulator, deployments, model)
    assert list(deployments.list(*PLACE, **HTTP)) == []


def test_an_error_after_the_deployment_was_made_leaves_the_deployment(simulator, deployments, model):
    simulator.fault("deployments.create_or_update", after_commit=True, status=503)
    refused_by_arm(lambda: deployments.begin_create_or_update(*PLACE, "mood", wanted(model), **HTTP))
    assert deployments.get(*PLACE, "mood", **HTTP).name == "mood"


def test_a_deployed_model_cannot_be_deleted(simulator, client, deployments, model):
    deploy(simulator, deployments, model)
    assert refused(lambda: client.models.delete(model)).code == "conflict"
    deployments.begin_delete(*PLACE, "mood", **HTTP)
    simulator.advance(60)
    assert client.models.delete(model).deleted


def test_what_is_left(simulator, deployments, model):
    deploy(simulator, deployments, model)
    assert sorted(resource.kind for resource in simulator.left()) == ["deployment", "file", "file", "model"]


def test_the_account_knows_its_endpoint(url, simulator):
    with arm(url, simulator) as client:
        assert client.accounts.get(*PLACE, **HTTP).properties.endpoint == url + "/"


@pytest.mark.parametrize(
    ("settings", "status", "code"),
    [
        ({"keys": []}, 401, "401"),
        ({"revoked_keys": ["azure-key"]}, 401, "401"),
        ({"may_tune": False}, 403, "forbidden"),
    ],
)
def test_bad_credentials_of_the_data_plane(simulator, client, settings, status, code):
    simulator.set(**settings)
    error = refused(client.files.list)
    assert (error.status_code, error.code) == (status, code)


@pytest.fixture
def secure(simulator, tmp_path):
    tls = certificates.make(tmp_path)
    with serve(simulator, tls=tls) as url:
        yield url, {"authority": url, "connection_verify": str(tls.authority), "disable_instance_discovery": True}


def test_a_client_secret_gets_a_token_for_arm_only(simulator, secure):
    url, options = secure
    credential = ClientSecretCredential("tenant-simulated", "client-simulated", "client-secret", **options)
    with arm(url, simulator, credential) as client:
        assert list(client.deployments.list(*PLACE, connection_verify=options["connection_verify"])) == []
    token = credential.get_token("https://management.azure.com/.default").token
    assert not simulator.entra.is_good(token, "https://cognitiveservices.azure.com")


@pytest.mark.parametrize(
    ("tenant", "client", "secret", "number"),
    [
        ("tenant-simulated", "client-simulated", "wrong", "AADSTS7000215"),
        ("tenant-simulated", "nobody", "client-secret", "AADSTS700016"),
        ("nowhere", "client-simulated", "client-secret", "nowhere"),
    ],
)
def test_a_client_secret_is_refused(secure, tenant, client, secret, number):
    credential = ClientSecretCredential(tenant, client, secret, **secure[1])
    with pytest.raises((ClientAuthenticationError, ValueError), match=number):
        credential.get_token("https://management.azure.com/.default")


def service_account_token(path, subject: str):
    claims = {"sub": subject, "aud": ["api://AzureADTokenExchange"]}
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in ({}, claims)]
    path.write_text(".".join([*parts, "signature"]))
    return str(path)


def test_workload_identity(simulator, secure, tmp_path):
    subject = "system:serviceaccount:finetune:operator"
    simulator.set(federated_subjects=[subject])
    for name, good in ((subject, True), ("system:serviceaccount:other:operator", False)):
        file = service_account_token(tmp_path / "token", name)
        credential = WorkloadIdentityCredential(
            tenant_id="tenant-simulated", client_id="client-simulated", token_file_path=file, **secure[1]
        )
        if good:
            token = credential.get_token("https://cognitiveservices.azure.com/.default").token
            assert simulator.entra.is_good(token, "https://cognitiveservices.azure.com")
        else:
            with pytest.raises(ClientAuthenticationError, match="AADSTS700213"):
                credential.get_token("https://cognitiveservices.azure.com/.default")


def test_settings_name_what_there_is():
    with pytest.raises(ValueError, match="colour"):
        AzureSettings(colour="red")
