"""The pod that asks a model at a provider: what it is told, what it mounts, and that it has nobody's credentials."""

from typing import Any

import orjson
import pytest

from finetune_api.asking import RequestingAttempt
from finetune_api.connection import CheckPod
from finetune_api.job_status import FineTuneJobStatus
from finetune_api.trainer import MeasureJob, PrepareJob
from finetune_operator.desired import check_job, measure_job
from tests.unit.finetune_operator.decide.given import UID, job_spec, verdict

OWNER = {
    "apiVersion": "finetune.dev/v1alpha1",
    "kind": "FineTuneJob",
    "metadata": {"name": "sentiment-1", "namespace": "team-a", "uid": UID},
}
ASKER = RequestingAttempt(namespace="team-a", name="sentiment-1", uid=UID, attempt=2)
DATASET = {"train": {"uri": "pvc://data/a.csv"}, "test": {"uri": "configmap://rows/b.csv"}}
JUDGE = {"url": "https://judge/v1", "model": "big", "apiKeySecretRef": {"name": "judge", "key": "api-key"}}


def build(
    active: dict[str, Any] | None = None,
    dataset: dict[str, Any] = DATASET,
    pod: CheckPod | None = None,
    **evaluation: Any,
) -> dict[str, Any]:
    provider = {"name": "openAI", "evaluation": {"activeVersion": active} if active else {}}
    status = FineTuneJobStatus.model_validate({"provider": provider, "dataset": verdict()})
    spec = job_spec(dataset=dataset, evaluation=evaluation)
    told = measure_job.described(ASKER, spec, status, "operator.finetune.svc")
    return measure_job.build(OWNER, told, pod or CheckPod(), number=3, default_image="check:1", report_ca="PEM")


def container(made: dict[str, Any]) -> dict[str, Any]:
    (found,) = made["spec"]["template"]["spec"]["containers"]
    return dict(found)


def variables(made: dict[str, Any]) -> dict[str, Any]:
    return {one["name"]: one.get("value", one.get("valueFrom")) for one in container(made)["env"]}


def told(made: dict[str, Any]) -> MeasureJob:
    return MeasureJob.model_validate_json(variables(made)["FINETUNE_JOB"])


def mounts(made: dict[str, Any]) -> dict[str, bool]:
    return {one["mountPath"]: one.get("readOnly", False) for one in container(made)["volumeMounts"]}


def test_its_name_is_its_attempts_and_its_own_number() -> None:
    made = build()
    labels = made["spec"]["template"]["metadata"]["labels"]
    assert made["metadata"]["name"] == "sentiment-1-2-eval3"
    assert (labels["finetune.dev/attempt"], labels["app.kubernetes.io/component"]) == ("2", "evaluation")
    assert (container(made)["image"], container(made)["args"]) == ("check:1", ["measure"])


def test_one_pod_asks_and_is_not_replaced_by_another_one() -> None:
    spec = build()["spec"]
    assert (spec["completions"], spec["parallelism"], spec["backoffLimit"]) == (1, 1, 0)


def test_it_asks_the_operator_and_nobody_else() -> None:
    made = build()
    url = f"https://operator.finetune.svc/v1/answers/team-a/sentiment-1/{UID}/2"
    assert told(made).answers_url == url
    assert set(variables(made)) == {"FINETUNE_JOB", "FINETUNE_REPORT_CA"}
    assert made["spec"]["template"]["spec"]["automountServiceAccountToken"] is False


def test_keys_of_the_data_have_a_prefix_of_their_own() -> None:
    dataset = {"train": {"uri": "s3://data/rows.csv"}, "secretRef": {"name": "data-keys"}}
    source = {"prefix": "FINETUNE_DATA_", "secretRef": {"name": "data-keys"}}
    assert container(build(dataset=dataset))["envFrom"] == [source]


def test_the_key_of_a_judge_is_a_secret_of_its_namespace() -> None:
    assert variables(build(judge=JUDGE))["FINETUNE_JUDGE_KEY"] == {"secretKeyRef": {"name": "judge", "key": "api-key"}}


def test_what_it_mounts() -> None:
    read = {
        "/tmp": False,
        "/var/lib/finetune/claims/data": True,
        "/var/lib/finetune/configmaps/rows": True,
        "/var/run/secrets/finetune.dev": True,
    }
    assert mounts(build()) == read
    kept = build(output={"uri": "pvc://reports/tweets"})
    assert mounts(kept) == read | {"/var/lib/finetune/claims/reports": False}
    assert told(kept).output == f"/var/lib/finetune/claims/reports/tweets/sentiment-1-{UID[:8]}"


def test_a_claim_that_is_read_and_written_is_mounted_once() -> None:
    assert mounts(build(output={"uri": "pvc://data/reports"}))["/var/lib/finetune/claims/data"] is False


ACTIVE = {
    "none": (None, None, False),
    "at the provider": ({"version": 2, "model": "ft:a"}, 2, False),
    "elsewhere": ({"version": 2}, 2, True),
}


@pytest.mark.parametrize("name", ACTIVE)
def test_the_active_version_is_a_number_and_no_name(name: str) -> None:
    active, number, missing = ACTIVE[name]
    job = told(build(active))
    assert (job.active_version, job.missing is not None) == (number, missing)
    assert b"ft:a" not in orjson.dumps(job.wire())


def check(pod: CheckPod, dataset: dict[str, Any] = DATASET, **evaluation: Any) -> dict[str, Any]:
    body = {"namespace": "team-a", "name": "sentiment-1", "uid": UID, "attempt": 2, "rules": "openAI", "uploadURL": "u"}
    job = PrepareJob.model_validate(body | {"spec": job_spec(dataset=dataset, evaluation=evaluation).wire()})
    return check_job.build(OWNER, job, pod, default_image="check:1", report_ca="PEM")


def test_the_check_reads_the_test_set_too() -> None:
    assert "/var/lib/finetune/configmaps/rows" in mounts(check(CheckPod()))


LATE = {"output": {"uri": "pvc://reports/tweets"}, "judge": JUDGE}


def test_what_the_evaluation_needs_is_looked_up_before_the_tuning_is_paid_for() -> None:
    made = check(CheckPod(), **LATE)
    assert mounts(made)["/var/lib/finetune/claims/reports"] is False, "whether it can be written to is tried"
    assert variables(made)["FINETUNE_JUDGE_KEY"] == {"secretKeyRef": {"name": "judge", "key": "api-key"}}


def test_the_check_waits_for_nothing_that_an_evaluation_without_test_set_would_need() -> None:
    made = check(CheckPod(), {"train": DATASET["train"]}, **LATE)
    assert (mounts(made), variables(made).keys()) == (
        mounts(check(CheckPod(), {"train": DATASET["train"]})),
        {"FINETUNE_JOB", "FINETUNE_REPORT_CA"},
    )


def test_pods_for_a_provider_wait_in_the_queue_that_the_connection_names() -> None:
    queue = "kueue.x-k8s.io/queue-name"
    queued = CheckPod.model_validate({"podTemplate": {"queueName": "small"}})
    for made in (check(queued), build(pod=queued)):
        assert made["metadata"]["labels"][queue] == "small"
        assert queue not in made["spec"]["template"]["metadata"]["labels"], "Kueue takes the Job, not its pod"
    assert queue not in check(CheckPod())["metadata"]["labels"]
