"""A team's ordinary month: a job, a model that answers, a second job, a roll-back, a deployment by hand, the end.

Weights are in S3 (moto's, on the cluster's host address): trainers upload them, servers and comparisons fetch them.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import boto3
import openai
import pytest

from tests.cluster import Cluster
from tests.e2e.site import SECRET_CANARY, Site, condition, eventually
from tests.simulators.aws.moto import moto

pytestmark = pytest.mark.usefixtures("first")

BUCKET = "team-models"
IN_S3 = {"connectionRef": {"name": "in-s3"}}


def client(site: Site, name: str, key: str = "none") -> openai.OpenAI:
    """OpenAI's client on a Service of the cluster, as a pod would call it."""
    service = site.cluster.get("-n", site.name, "service", name)
    return openai.OpenAI(base_url=f"http://{service['spec']['clusterIP']}/v1", api_key=key, max_retries=0, timeout=30)


def first_answer(caller: openai.OpenAI, model: str) -> str:
    """As `ask`, of a Service that is new: it is reached a moment after its pod is ready."""

    def look() -> str | None:
        try:
            return f"answered: {ask(caller, model)}"
        except openai.APIConnectionError:
            return None

    return eventually(look, f"{model} being reached", 30)


def ask(caller: openai.OpenAI, model: str) -> str:
    """One short answer."""
    answer = caller.chat.completions.create(
        model=model, messages=[{"role": "user", "content": "what colour is the sky?"}], max_tokens=4, temperature=0
    )
    return answer.choices[0].message.content or ""


@contextmanager
def asking_all_the_while(site: Site, name: str) -> Iterator[list[str]]:
    """A client that asks until the end of the block; yields the errors it met, and has asked at least once."""
    errors: list[str] = []
    answers = 0
    stop = threading.Event()

    def run() -> None:
        nonlocal answers
        caller = client(site, name)
        while not stop.is_set():
            try:
                ask(caller, name)
                answers += 1
            except openai.OpenAIError as error:
                errors.append(f"{error!r} by {error.__cause__!r} after {answers} answers")
            stop.wait(0.1)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield errors
    finally:
        stop.set()
        thread.join(60)
    assert answers > 5


@pytest.fixture(scope="module")
def bucket(operator: Cluster, site: Site) -> Iterator[Callable[[], set[str]]]:
    """Where a connection keeps its artifacts; tells the names of what is there."""
    with moto(operator.addresses.host) as url:
        keys = {"aws_access_key_id": "pods", "aws_secret_access_key": SECRET_CANARY, "region_name": "us-east-1"}
        s3 = boto3.client("s3", endpoint_url=url, **keys)
        s3.create_bucket(Bucket=BUCKET)
        site.secret("keys", **{name.upper(): value for name, value in keys.items() if name.startswith("aws")},
                    AWS_REGION="us-east-1")  # fmt: skip
        connection = operator.get("llmconnection", "tiny")["spec"]
        connection["huggingFace"]["artifacts"] = {
            "uri": f"s3://{BUCKET}/tuned",
            "endpointURL": url,
            "secretRef": {"name": "keys"},
        }
        kind = {"apiVersion": "finetune.dev/v1alpha1", "kind": "LLMConnection"}
        operator.apply({**kind, "metadata": {"name": "in-s3"}, "spec": connection})
        yield lambda: {entry["Key"] for entry in s3.list_objects_v2(Bucket=BUCKET).get("Contents", ())}


@pytest.fixture(scope="module")
def first(site: Site, bucket: Callable[[], set[str]]) -> dict:  # noqa: ARG001 - the connection keeps its artifacts there
    """A job without a validation set, on a model that nobody has made."""
    site.job("colours-1", **IN_S3)
    return site.succeeded("colours-1")


@pytest.fixture(scope="module")
def by_hand(site: Site, first: dict) -> None:  # noqa: ARG001 - it serves what that job makes
    """A deployment that asks for a key; it comes up beside the model's own."""
    site.secret("key", **{"api-key": SECRET_CANARY})
    reference = {"name": "key", "key": "api-key"}
    site.deployment("by-hand", modelRef={"name": "colours"}, version=1, apiKeySecretRef=reference)


def test_a_job_without_a_validation_set_makes_version_one(first: dict) -> None:
    assert first["modelVersion"] == 1
    assert first["trainLoss"] > 0
    assert "evalLoss" not in first
    assert condition(first, "Complete")["status"] == "True"
    assert condition(first, "Ready")["status"] == "True"
    assert first["dataset"]["train"]["rows"] == 24


def test_the_artifact_is_whole_and_has_the_curves(bucket: Callable[[], set[str]], first: dict) -> None:
    folder = first["result"]["artifact"]["uri"].removeprefix(f"s3://{BUCKET}/")
    names = {name.removeprefix(f"{folder}/") for name in bucket()}
    assert {
        "adapter_model.safetensors",
        "adapter_config.json",
        "manifest.json",
        "metrics.jsonl",
        "report.html",
    } <= names
    assert not [name for name in bucket() if "/state/" in name], "snapshots are not needed any more"


@pytest.mark.usefixtures("by_hand")
def test_the_new_model_is_deployed_and_answers(site: Site) -> None:
    status = site.wait("deployment", "colours", lambda s: s.get("phase") == "Ready", "to answer")
    assert status["servedVersion"] == 1
    url = f"http://colours.{site.name}.svc/v1"
    assert status["endpoint"] == {"url": url, "model": "colours", "api": "OpenAI"}
    assert first_answer(client(site, "colours"), "colours")
    model = site.wait("model", "colours", lambda s: condition(s, "Ready").get("status") == "True", "to be ready")
    assert (model["activeVersion"], model["latestVersion"]) == (1, 1)
    assert model["versions"][0]["deployment"] == "colours"


def test_a_second_job_moves_the_deployment_without_a_failed_request(site: Site) -> None:
    with asking_all_the_while(site, "colours") as errors:
        splits = ("train", "validation", "test")
        site.job(
            "colours-2",
            **IN_S3,
            dataset={split: {"uri": f"pvc://data/{split}.jsonl"} for split in splits},
            evaluation={"baselines": [{"activeVersion": {}}], "maxNewTokens": 4},
        )
        status = site.succeeded("colours-2")
        assert status["modelVersion"] == 2
        assert status["evalLoss"] > 0
        assert status["loss"]["validation"]
        site.wait("deployment", "colours", lambda s: s.get("servedVersion") == 2, "to serve version 2")
        eventually(lambda: len(site.pods("finetune.dev/deployment=colours")) == 1, "the old pod to go", 120)
    assert errors == []


def test_the_second_version_was_compared_with_the_first(site: Site) -> None:
    evaluation = site.status("job", "colours-2")["evaluation"]
    compared = evaluation["baselines"]["activeVersion"]
    assert (compared["version"], "problem" in compared) == (1, False)
    assert compared["verdict"] in {"Better", "Worse", "NoDifference"}
    assert evaluation["tuned"]["perplexity"] > 1
    assert site.status("model", "colours")["versions"][1]["evaluation"]["verdict"] == evaluation["verdict"]


def test_rolling_back_is_setting_active_version(site: Site) -> None:
    site.patch("model", "colours", {"activeVersion": 1})
    site.wait("deployment", "colours", lambda s: s.get("servedVersion") == 1, "to serve version 1 again")
    model = site.status("model", "colours")
    assert (model["activeVersion"], model["latestVersion"]) == (1, 2)


def test_a_pin_on_a_version_that_does_not_exist_says_so_and_changes_nothing(site: Site) -> None:
    site.patch("model", "colours", {"activeVersion": 9})
    status = site.wait("model", "colours", lambda s: condition(s, "Stalled").get("status") == "True", "to say so")
    assert condition(status, "Stalled")["reason"] == "VersionNotFound"
    assert "there are 1, 2" in condition(status, "Stalled")["message"]
    assert site.status("deployment", "colours")["servedVersion"] == 1
    site.patch("model", "colours", {"activeVersion": None})


@pytest.mark.usefixtures("by_hand")
def test_a_deployment_by_hand_serves_the_version_it_names_and_asks_for_its_key(site: Site) -> None:
    status = site.wait("deployment", "by-hand", lambda s: s.get("phase") == "Ready", "to answer")
    assert status["servedVersion"] == 1
    assert first_answer(client(site, "by-hand", SECRET_CANARY), "by-hand")
    with pytest.raises(openai.AuthenticationError):
        ask(client(site, "by-hand", "wrong"), "by-hand")
    site.delete("deployment", "by-hand")


def test_weights_beyond_the_history_limit_leave_the_store(site: Site, bucket: Callable[[], set[str]]) -> None:
    assert len(folders_of_jobs(bucket())) == 2
    site.patch("model", "colours", {"historyLimit": 1})
    site.wait("model", "colours", lambda s: [v["version"] for v in s.get("versions", [])] == [2], "to forget one", 90)
    assert [folder.rpartition("-")[0] for folder in folders_of_jobs(bucket())] == ["colours-2"]


def folders_of_jobs(names: set[str]) -> set[str]:
    """Of objects at PREFIX/NAMESPACE/MODEL/JOB/…"""
    return {name.split("/")[3] for name in names}


def test_deleting_the_model_takes_its_deployment_along_and_leaves_the_weights(
    site: Site, bucket: Callable[[], set[str]]
) -> None:
    site.delete("model", "colours")
    eventually(lambda: not site.pods("finetune.dev/deployment=colours"), "the pods to go", 120)
    eventually(lambda: not site.pods("finetune.dev/deployment=by-hand"), "those of the one by hand, too", 120)
    assert [name for name in bucket() if name.endswith("/adapter_model.safetensors")]
