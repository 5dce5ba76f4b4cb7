"""What is made for an attempt on several nodes, and what its trainers are told."""

from typing import Any

import pytest

from finetune_api.trainer import TrainerJob
from finetune_operator.desired import jobset, names, training_job
from tests.unit.finetune_operator.decide.given import job_spec
from tests.unit.finetune_operator.desired.given_children import attempt, container_of, is_owned, job, owner, variables
from tests.unit.finetune_operator.desired.given_names import LONG_NAME
from tests.unit.finetune_operator.desired.given_pods import TEMPLATE, hugging_face, restricted


def job_set(
    name: str = "sentiment-1", local: dict[str, Any] | None = None, nodes: int = 2, gpus: int | None = 8, **fields: Any
) -> dict[str, Any]:
    resources = {"nodes": nodes, **({} if gpus is None else {"gpusPerNode": gpus})}
    spec = job_spec(resources=resources, **fields)
    return jobset.build(owner(name=name), spec, hugging_face(**(local or {})), attempt())


def job_of(made: dict[str, Any]) -> dict[str, Any]:
    (only,) = made["spec"]["replicatedJobs"]
    assert only["replicas"] == 1
    found: dict[str, Any] = only["template"]
    return found


def told(made: dict[str, Any]) -> TrainerJob:
    return TrainerJob.model_validate_json(variables(made)["FINETUNE_JOB"])


def test_a_set_is_one_job_with_a_pod_for_each_node_that_nobody_but_the_operator_starts_again() -> None:
    made = job_set(nodes=3, activeDeadlineSeconds=60)
    is_owned(made, "FineTuneJob")
    assert made["metadata"]["name"] == "sentiment-1-2"
    assert made["spec"]["failurePolicy"] == {"maxRestarts": 0}
    spec = job_of(made)["spec"]
    assert {key: spec[key] for key in spec if key != "template"} == {
        "backoffLimit": 0, "completions": 3, "parallelism": 3, "completionMode": "Indexed", "activeDeadlineSeconds": 60,
    }  # fmt: skip
    assert spec["template"]["spec"]["restartPolicy"] == "Never"
    assert "suspend" not in made["spec"], "that is Kueue's"
    restricted(spec["template"]["spec"])


def test_pods_of_a_set_are_those_of_a_job_and_know_of_each_other() -> None:
    several, one = job_of(job_set()), job(resources={"gpusPerNode": 8})
    (theirs,), (its,) = (made["spec"]["template"]["spec"]["containers"] for made in (several, one))
    assert {**theirs, "env": None} == {**its, "env": None}
    assert several["spec"]["template"]["spec"]["volumes"] == one["spec"]["template"]["spec"]["volumes"]
    assert told(several).model_copy(update={"nodes": 1, "rendezvous": None, "spec": told(one).spec}) == told(one)
    assert told(several).rendezvous == "sentiment-1-2-node-0-0.sentiment-1-2:29500"
    assert (told(several).nodes, told(several).ranks_per_node) == (2, 8)
    # They meet by their names, before any of them is ready.
    assert job_set()["spec"]["network"] == {"enableDNSHostnames": True, "publishNotReadyAddresses": True}


def test_the_jobs_that_the_set_makes_are_found_and_known_as_ours() -> None:
    made = job_set(local={"podTemplate": {**TEMPLATE, "queueName": "gpus"}})
    labels = job_of(made)["metadata"]["labels"]
    assert made["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpus"
    assert "kueue.x-k8s.io/queue-name" not in labels, "Kueue takes the set as a whole"
    assert labels["app.kubernetes.io/managed-by"] == "finetune-operator"
    assert (labels["finetune.dev/job"], labels["finetune.dev/job-uid"]) == ("sentiment-1", "owner-uid")
    assert job_of(made)["spec"]["template"]["metadata"]["labels"]["finetune.dev/attempt"] == "2"


@pytest.mark.parametrize("name", ["a", "sentiment-1", "2nd-try", "7", "tweets.of-today", LONG_NAME, "9" * 253])
@pytest.mark.parametrize("number", [1, 1000])
def test_names_of_sets_leave_room_for_their_pods_and_begin_with_a_letter(name: str, number: int) -> None:
    made = names.job_set(name, number)
    assert made[0].isalpha()
    assert made.endswith(f"-{number}")
    assert set(made) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert len(f"{names.set_job(made)}-1023-abcde") <= 63
    assert names.batch_job(name, number, 2) == f"{made}-node-0"
    assert names.attempt(name, number, 1) == names.batch_job(name, number, 1) == names.training_job(name, number)


def test_names_of_sets_stay_apart() -> None:
    known = ["1a", "j-1a", "1.a", "1-a", "a" * 60, "a" * 61]
    assert len({names.job_set(name, 1) for name in known}) == len(known)


@pytest.mark.parametrize(
    ("local", "resources", "ranks"),
    [
        ({}, {}, 1),
        ({}, {"gpusPerNode": 0}, 1),
        ({}, {"gpusPerNode": 1}, 1),
        ({}, {"gpusPerNode": 4}, 4),
        ({"gpuResource": "amd.com/gpu"}, {"gpusPerNode": 4}, 4),
        ({"podTemplate": {"resources": {"limits": {"nvidia.com/gpu": 2}}}}, {}, 2),
        ({"podTemplate": {"resources": {"limits": {"nvidia.com/gpu": "2"}}}}, {"gpusPerNode": 0}, 1),
        ({"podTemplate": {"resources": {"limits": {"example.com/gpu": 2}}}}, {}, 1),
    ],
)
def test_each_gpu_of_a_pod_has_a_process_of_its_own(local: dict[str, Any], resources: Any, ranks: int) -> None:
    made = job(local=local, resources=resources)
    assert (told(made).ranks_per_node, told(made).nodes, told(made).rendezvous) == (ranks, 1, None)
    assert made["kind"] == "Job"
    mounted = {mount["mountPath"] for mount in container_of(made)["volumeMounts"]}
    assert ("/dev/shm" in mounted) == (ranks > 1 or bool(resources.get("gpusPerNode")))


def test_code_of_ones_own_has_all_gpus_of_its_pod_to_itself() -> None:
    made = job(code={"configMapRef": {"name": "c", "key": "train.py"}}, resources={"gpusPerNode": 4})
    assert told(made).ranks_per_node == 1
    assert container_of(made)["resources"]["limits"]["nvidia.com/gpu"] == 4


def test_a_plain_job_is_as_it_was() -> None:
    spec = training_job.build(owner(), job_spec(), hugging_face(), attempt())["spec"]
    assert (spec["completions"], spec["parallelism"], "completionMode" in spec) == (1, 1, False)
