"""What is made for jobs, models and deployments, manifest by manifest."""

from dataclasses import replace
from typing import Any

import orjson
import pytest

from finetune_api.deployment import ModelDeploymentSpec
from finetune_api.model import FineTunedModelSpec
from finetune_api.trainer import TrainerJob
from finetune_operator.desired import fine_tuned_model, model_deployment, prune_job, serving, training_job
from tests.unit.finetune_operator.decide.given import job_spec
from tests.unit.finetune_operator.decide.given_models import version
from tests.unit.finetune_operator.desired.given_children import (
    OUTPUT,
    attempt,
    container_of,
    deployment,
    is_owned,
    job,
    mounts,
    owner,
    pod_of,
    served,
    variables,
)
from tests.unit.finetune_operator.desired.given_names import LONG_NAME
from tests.unit.finetune_operator.desired.given_pods import TEMPLATE, hugging_face, restricted

# Training.


def test_one_pod_per_attempt_that_is_never_started_again_by_the_cluster() -> None:
    made = job()
    assert made["metadata"]["name"] == "sentiment-1-2"
    assert made["spec"]["backoffLimit"] == 0
    assert pod_of(made)["restartPolicy"] == "Never"
    assert "suspend" not in made["spec"], "that is Kueue's"
    assert "activeDeadlineSeconds" not in made["spec"]
    assert "ttlSecondsAfterFinished" not in made["spec"]
    is_owned(made, "FineTuneJob")
    restricted(pod_of(made))


ENDPOINT = {"name": "my-rag", "url": "http://rag.team-a.svc/v1", "model": "m"}


def test_the_key_of_an_endpoint_comes_from_the_secret_that_the_job_names() -> None:
    keyed = {"endpoint": ENDPOINT | {"apiKeySecretRef": {"name": "rag", "key": "api-key"}}}
    judge = {"url": "https://judge.example.com/v1", "model": "m", "apiKeySecretRef": {"name": "judge", "key": "k"}}
    made = job(evaluation={"baselines": [keyed, {"endpoint": ENDPOINT | {"name": "open"}}], "judge": judge})
    assert {name: value for name, value in variables(made).items() if "_KEY" in name} == {
        "FINETUNE_ENDPOINT_KEY_MY_RAG": {"secretKeyRef": {"name": "rag", "key": "api-key"}},
        "FINETUNE_JUDGE_KEY": {"secretKeyRef": {"name": "judge", "key": "k"}},
    }


def test_the_keys_of_a_tracker_have_a_prefix_of_their_own() -> None:
    mlflow = {"trackingURI": "https://mlflow.example.com", "secretRef": {"name": "mlflow"}}
    made = job(trackers={"mlflow": mlflow, "tensorBoard": {}})
    assert container_of(made)["envFrom"] == [{"prefix": "FINETUNE_TRACKERS_", "secretRef": {"name": "mlflow"}}]
    assert "envFrom" not in container_of(job(trackers={"tensorBoard": {}}))
    both = container_of(job(trackers={"mlflow": mlflow, "wandb": {"secretRef": {"name": "wandb"}}}))["envFrom"]
    assert [source["secretRef"]["name"] for source in both] == ["mlflow", "wandb"]


def test_keys_of_pushes_come_from_the_secrets_that_the_job_names() -> None:
    push = {
        "oci": {"uri": "oci://ghcr.io/team/a:1", "secretRef": {"name": "registry"}},
        "huggingFace": {"repository": "team/a", "tokenSecretRef": {"name": "hub", "key": "token"}},
    }
    made = job(artifact={"push": push})
    assert {name: value for name, value in variables(made).items() if "_PUSH_" in name} == {
        "FINETUNE_PUSH_DOCKER_CONFIG": {"secretKeyRef": {"name": "registry", "key": ".dockerconfigjson"}},
        "FINETUNE_PUSH_HUB_TOKEN": {"secretKeyRef": {"name": "hub", "key": "token"}},
    }
    assert not [name for name in variables(job()) if "_PUSH_" in name]


@pytest.mark.parametrize(
    ("uri", "folder", "claims"),
    [
        (f"{OUTPUT}/model", "/var/lib/finetune/claims/models/team-a/sentiment/sentiment-1-11111111/model", {}),
        ("pvc://old/x/model", "/var/lib/finetune/claims/old/x/model", {"/var/lib/finetune/claims/old": True}),
        ("s3://bucket/model", None, {}),
        (None, None, {}),
    ],
)
def test_the_active_version_is_handed_to_the_trainer_read_only(
    uri: str | None, folder: str | None, claims: dict[str, bool]
) -> None:
    active = training_job.Active(version=3, artifact_uri=uri)
    made = training_job.build(owner(), job_spec(), hugging_face(), attempt().model_copy(update={"active": active}))
    read = TrainerJob.model_validate_json(variables(made)["FINETUNE_JOB"])
    assert read.active_version is not None
    assert (read.active_version.version, read.active_version.folder) == (3, folder)
    assert mounts(made).items() >= claims.items()
    assert mounts(made)["/var/lib/finetune/claims/models"] is False
    assert job_spec() == read.spec


def test_the_trainer_reads_its_job_from_the_environment() -> None:
    spec = {"method": "LoRA", "lora": {"r": 8}, "hyperparameters": {"epochs": 1.5, "learningRate": 2e-4}}
    made = job(local={"modelCache": {"volume": {"emptyDir": {}}}, "airGapped": True}, **spec)
    read = TrainerJob.model_validate_json(variables(made)["FINETUNE_JOB"])
    assert read.spec == job_spec(**spec)
    assert (read.attempt, read.uid, read.air_gapped) == (2, "owner-uid", True)
    assert read.output == "/var/lib/finetune/claims/models/team-a/sentiment/sentiment-1-11111111"
    assert read.artifact_uri == f"{OUTPUT}/model"
    assert read.model_cache == "/var/lib/finetune/model-cache"
    assert variables(made)["FINETUNE_REPORT_CA"] == "PEM"
    assert variables(made)["HF_HUB_OFFLINE"] == "1"
    assert orjson.loads(variables(made)["FINETUNE_JOB"])["report"]["url"].startswith("https://")


def test_the_trainer_is_not_told_what_is_as_if_nobody_had_said_it() -> None:
    """An image of another release may not know the field, and refuses what it does not know."""
    told = orjson.loads(variables(job())["FINETUNE_JOB"])
    always = {"namespace", "name", "uid", "attempt", "spec", "report", "output", "artifactURI"}
    assert set(told) == always
    read = TrainerJob.model_validate(told)
    assert (read.nodes, read.air_gapped, read.short_of_memory) == (1, False, False)
    assert told["spec"]["hyperparameters"]["epochs"] == 3, "a default of the spec may be another one there"


def test_without_a_cache_and_with_a_hub() -> None:
    made = job(
        hubTokenSecretRef={"name": "hub", "key": "token"},
        dataset={"train": {"uri": "s3://bucket/rows.csv"}, "secretRef": {"name": "aws"}},
    )
    assert TrainerJob.model_validate_json(variables(made)["FINETUNE_JOB"]).model_cache is None
    assert "HF_HUB_OFFLINE" not in variables(made)
    assert variables(made)["HF_TOKEN"] == {"secretKeyRef": {"name": "hub", "key": "token"}}
    assert container_of(made)["envFrom"] == [{"prefix": "FINETUNE_DATA_", "secretRef": {"name": "aws"}}]


def test_what_a_trainer_mounts() -> None:
    dataset = {"train": {"uri": "pvc://data/a.csv"}, "test": {"uri": "configmap://rows/b.csv"}}
    made = job(local={"modelCache": {"volume": {"persistentVolumeClaim": {"claimName": "cache"}}}}, dataset=dataset)
    assert mounts(made) == {
        "/tmp": False,
        "/var/lib/finetune/claims/data": True,
        "/var/lib/finetune/configmaps/rows": True,
        "/var/lib/finetune/model-cache": True,
        "/var/lib/finetune/claims/models": False,
        "/var/run/secrets/finetune.dev": True,
    }
    (token,) = [v["projected"] for v in pod_of(made)["volumes"] if "projected" in v]
    assert token["sources"][0]["serviceAccountToken"]["audience"] == "reports.finetune.dev"


def test_own_code_is_a_config_map_mounted_read_only_and_never_copied() -> None:
    made = job(code={"configMapRef": {"name": "my-recipe", "key": "train.py"}})
    assert mounts(made)["/var/lib/finetune/configmaps/my-recipe"] is True
    (volume,) = [v for v in pod_of(made)["volumes"] if "configMap" in v]
    assert volume["configMap"] == {"name": "my-recipe"}
    read = TrainerJob.model_validate_json(variables(made)["FINETUNE_JOB"])
    assert read.code == "/var/lib/finetune/configmaps/my-recipe/train.py"
    assert TrainerJob.model_validate_json(variables(job())["FINETUNE_JOB"]).code is None
    restricted(pod_of(made))


def test_deadline_and_queue() -> None:
    made = job(local={"podTemplate": {"queueName": "gpu-queue"}}, activeDeadlineSeconds=60)
    assert made["spec"]["activeDeadlineSeconds"] == 60
    assert made["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpu-queue"
    assert "kueue.x-k8s.io/queue-name" not in job()["metadata"]["labels"]


def test_a_long_name_is_shortened_in_labels_and_whole_in_an_annotation() -> None:
    made = job(name=LONG_NAME)
    values = [*made["metadata"]["labels"].values(), made["metadata"]["name"]]
    assert max(map(len, values)) <= 63
    assert made["metadata"]["annotations"]["finetune.dev/owner"] == LONG_NAME


@pytest.mark.parametrize(
    ("template", "asked", "made"),
    [
        ({}, {}, {}),
        ({"limits": {"cpu": 2}, "requests": {"cpu": 1}}, {}, {"limits": {"cpu": 2}, "requests": {"cpu": 1}}),
        (
            {"limits": {"cpu": 2, "memory": "4Gi"}},
            {"cpu": "500m"},
            {"limits": {"cpu": "500m", "memory": "4Gi"}, "requests": {"cpu": "500m"}},
        ),
        ({}, {"gpusPerNode": 2}, {"limits": {"nvidia.com/gpu": 2}, "requests": {"nvidia.com/gpu": 2}}),
        ({"limits": {"nvidia.com/gpu": 1}}, {"gpusPerNode": 0}, {}),
        ({"limits": {"nvidia.com/gpu": 1}}, {}, {"limits": {"nvidia.com/gpu": 1}}),
        (
            {},
            {"ephemeralStorage": "1Gi", "memory": "1Gi"},
            {kind: {"memory": "1Gi", "ephemeral-storage": "1Gi"} for kind in ("limits", "requests")},
        ),
    ],
)
def test_resources(template: Any, asked: Any, made: Any) -> None:
    local = hugging_face(podTemplate={"resources": template})
    assert training_job.resources(job_spec(resources=asked), local) == made


@pytest.mark.parametrize(
    ("template", "fields", "comes"),
    [
        ({}, {}, False),
        ({}, {"resources": {"gpusPerNode": 1}}, True),
        ({"limits": {"nvidia.com/gpu": 1}}, {}, True),
        ({"limits": {"nvidia.com/gpu": 1}}, {"resources": {"gpusPerNode": 0}}, False),
        ({}, {"code": {"configMapRef": {"name": "recipe", "key": "train.py"}}}, True),
    ],
)
def test_shared_memory_comes_with_gpus_whoever_asks_for_them_and_for_code_of_ones_own(
    template: Any, fields: Any, comes: bool
) -> None:
    """64 MiB, a container's own, end a DataLoader with workers by SIGBUS."""
    local = {"podTemplate": {"resources": template}}
    assert ("/dev/shm" in mounts(job(local=local, **fields))) is comes


@pytest.mark.parametrize(
    ("template", "fields", "gpus"),
    [
        ({}, {}, None),
        ({}, {"resources": {"gpusPerNode": 2}}, "2"),
        ({"limits": {"nvidia.com/gpu": 1}}, {}, "1"),
        ({"limits": {"nvidia.com/gpu": 1}}, {"resources": {"gpusPerNode": 0}}, None),
    ],
)
def test_a_trainer_is_told_of_the_gpus_that_its_pod_has_asked_for(template: Any, fields: Any, gpus: str | None) -> None:
    made = job(local={"podTemplate": {"resources": template}}, **fields)
    assert variables(made).get("FINETUNE_GPUS") == gpus


# Pruning.


def test_a_prune_job_deletes_one_folder_of_its_model() -> None:
    made = prune_job.build(owner("FineTunedModel", "sentiment"), version(1), hugging_face(checkImage="check:1"))
    assert made is not None
    container = container_of(made)
    folder = "/var/lib/finetune/claims/models/team-a/sentiment/job-1"
    assert container["args"] == ["prune", folder, "--root", "/var/lib/finetune/claims/models/team-a/sentiment"]
    assert container["image"] == "check:1"
    assert mounts(made)["/var/lib/finetune/claims/models"] is False
    assert [sorted(container["resources"][kind]) for kind in ("requests", "limits")] == [["cpu", "memory"]] * 2
    is_owned(made, "FineTunedModel")
    restricted(pod_of(made))


@pytest.mark.parametrize(
    "uri",
    [
        None,
        "pvc://models/model",
        "pvc://models/team-a/sentiment/model",
        "pvc://models/team-b/sentiment/job-1/model",
        "pvc://models/team-a/another/job-1/model",
    ],
)
def test_nothing_else_is_deleted_on_a_pods_word(uri: str | None) -> None:
    artifact = version(1).artifact.model_copy(update={"uri": uri})
    told = version(1).model_copy(update={"artifact": artifact})
    assert prune_job.build(owner("FineTunedModel", "sentiment"), told, hugging_face()) is None


def test_each_version_has_a_prune_job_of_its_own() -> None:
    found = {prune_job.name(model, number) for model in ("a" * 63, "a" * 62 + "b") for number in range(1, 50)}
    assert len(found) == 98
    assert max(map(len, found)) <= 63


# Serving.


FOLDER = "/var/lib/finetune/claims/models/team-a/sentiment/job-3/model"


def test_the_new_pods_come_before_the_old_go() -> None:
    made = deployment()
    assert made["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    assert made["spec"]["replicas"] == 1
    pod_labels = made["spec"]["template"]["metadata"]["labels"]
    assert made["spec"]["selector"]["matchLabels"].items() <= pod_labels.items()
    assert "finetune.dev/version" not in made["spec"]["selector"]["matchLabels"], "old pods stay in the Service"
    assert pod_labels["finetune.dev/version"] == "3"
    is_owned(made, "ModelDeployment")
    restricted(pod_of(made))


def test_a_server_that_goes_has_its_grace_period_for_the_answers_that_it_is_giving() -> None:
    made = deployment()
    pause, args = container_of(made)["lifecycle"]["preStop"]["sleep"]["seconds"], container_of(made)["args"]
    answers = int(args[args.index("--drain-seconds") + 1])
    rest = pod_of(made)["terminationGracePeriodSeconds"] - pause - answers
    assert 11 < rest <= 20, "six seconds of farewell, five for the engine's end; all others are for answers"


def test_a_server_that_loads_for_most_of_an_hour_is_not_ended_for_it() -> None:
    startup = container_of(deployment())["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] == 3600


def test_the_service_selects_the_pods_and_has_no_version() -> None:
    spec = ModelDeploymentSpec.model_validate({"modelRef": {"name": "sentiment"}})
    made = serving.service(owner("ModelDeployment", "sentiment"), spec)
    labels = deployment()["spec"]["template"]["metadata"]["labels"]
    assert made["spec"]["selector"].items() <= labels.items()
    assert made["spec"]["ports"][0]["targetPort"] == container_of(deployment())["ports"][0]["containerPort"]
    is_owned(made, "ModelDeployment")


def test_a_retained_server_has_no_owner() -> None:
    assert deployment(deletionPolicy="Retain")["metadata"]["ownerReferences"] == []


def test_transformers() -> None:
    cache = {"modelCache": {"volume": {"emptyDir": {}}}}
    key = {"name": "key", "key": "api-key"}
    made = deployment(
        served(local={**cache, "trustRemoteCode": True}), huggingFace={"maxModelLength": 512}, apiKeySecretRef=key
    )
    assert container_of(made)["image"] == "trainer:1"
    assert container_of(made)["args"] == [
        *("serve", "--model", FOLDER, "--name", "sentiment", "--port", "8000", "--drain-seconds", "100"),
        *("--model-cache", "/var/lib/finetune/model-cache", "--max-model-length", "512"),
        *("--api-key-file", "/var/run/secrets/finetune.dev/server/api-key", "--allow-hub", "--trust-remote-code"),
    ]
    assert mounts(made)["/var/lib/finetune/claims/models"] is True
    (secret,) = [v["secret"] for v in pod_of(made)["volumes"] if "secret" in v]
    assert secret == {"secretName": "key", "items": [{"key": "api-key", "path": "api-key"}]}
    restricted(pod_of(made))


def test_an_air_gapped_server_asks_no_hub() -> None:
    made = deployment(served(local={"airGapped": True, "modelCache": {"volume": {"emptyDir": {}}}}))
    assert "--allow-hub" not in container_of(made)["args"]


@pytest.mark.parametrize(("rank", "flag"), [(1, "1"), (7, "8"), (8, "8"), (9, "16"), (300, "320"), (None, "512")])
def test_vllm_serves_an_adapter_beside_its_base(rank: int | None, flag: str) -> None:
    made = deployment(served("vLLM", lora_rank=rank), huggingFace={"gpus": 1})
    assert container_of(made)["image"] == "vllm:1"
    assert container_of(made)["command"] == ["vllm"]
    assert container_of(made)["args"] == [
        *("serve", "/tmp/base", "--port", "8000", "--served-model-name", "tiny/llama"),
        *("--enable-lora", "--max-lora-rank", flag, "--lora-modules", f"sentiment={FOLDER}"),
        *("--tokenizer", FOLDER, "--generation-config", FOLDER),
    ]
    assert "/dev/shm" in mounts(made)
    restricted(pod_of(made))


def test_vllm_serves_whole_weights_over_several_gpus_with_a_key() -> None:
    local = {"airGapped": True, "modelCache": {"volume": {"emptyDir": {}}}, "trustRemoteCode": True}
    key = {"name": "key", "key": "k"}
    made = deployment(
        served("vLLM", local, kind="Full"), huggingFace={"gpus": 4, "maxModelLength": 2048}, apiKeySecretRef=key
    )
    assert container_of(made)["args"] == [
        *("serve", FOLDER, "--port", "8000", "--served-model-name", "sentiment", "--max-model-len", "2048"),
        *("--tensor-parallel-size", "4", "--trust-remote-code"),
    ]
    assert variables(made)["VLLM_API_KEY"] == {"secretKeyRef": {"name": "key", "key": "k"}}
    assert variables(made)["HF_HUB_OFFLINE"] == "1"
    assert container_of(made)["resources"] == {"limits": {"nvidia.com/gpu": "4"}}


def test_vllm_listens_by_ipv6_where_the_kubelet_looks_there() -> None:
    """Without --host it takes connections by IPv4 alone: in a cluster of IPv6 it would never be ready."""
    args = container_of(deployment(replace(served("vLLM"), ipv6=True)))["args"]
    assert args[args.index("--host") + 1] == "::"
    assert "--host" not in container_of(deployment(served("vLLM")))["args"]
    assert "--host" not in container_of(deployment(replace(served(), ipv6=True)))["args"], "ours listens by both"


CACHE = {"modelCache": {"volume": {"emptyDir": {}}}}


@pytest.mark.parametrize(
    ("local", "flags"),
    [
        ({}, ["--allow-hub"]),
        (CACHE, ["--model-cache", "/var/lib/finetune/model-cache", "--allow-hub"]),
        (CACHE | {"airGapped": True}, ["--model-cache", "/var/lib/finetune/model-cache"]),
    ],
)
def test_the_base_of_an_adapter_is_found_before_vllm_starts(local: dict[str, Any], flags: list[str]) -> None:
    """vLLM takes a folder that is not there for a name on a hub, and says nothing that helps."""
    made = deployment(served("vLLM", local))
    (base,) = pod_of(made)["initContainers"]
    assert base["args"] == ["base", "--model", FOLDER, "--link", "/tmp/base", *flags]
    assert sorted(base["resources"]["limits"]) == ["cpu", "memory"], "quotas count both"
    assert "/tmp" in mounts(made), "the link is for both containers"
    restricted(pod_of(made))
    assert "initContainers" not in pod_of(deployment(served("vLLM", local, kind="Full"))), "it has no base"
    assert "initContainers" not in pod_of(deployment(served(local=local))), "our server looks itself"


def test_a_server_without_gpus_takes_none_from_the_template_and_quantities_are_text() -> None:
    template = {"podTemplate": {"resources": {"limits": {"cpu": 2, "nvidia.com/gpu": 1}}}}
    assert container_of(deployment(served(local=template), huggingFace={"gpus": 0}))["resources"] == {
        "limits": {"cpu": "2"}
    }
    assert container_of(deployment(served(local=template)))["resources"] == {
        "limits": {"cpu": "2", "nvidia.com/gpu": "1"}
    }
    own = {"resources": {"requests": {"cpu": 1}}}
    assert container_of(deployment(served(local=template), huggingFace=own))["resources"] == {"requests": {"cpu": "1"}}


def test_a_server_by_transformers_is_told_of_its_gpus() -> None:
    """vLLM ends by itself where it sees none; ours would answer from the CPU."""
    template = {"podTemplate": {"resources": {"limits": {"nvidia.com/gpu": 1}}}}
    assert variables(deployment(served(local=template)))["FINETUNE_GPUS"] == "1"
    assert variables(deployment(served(), huggingFace={"gpus": 2}))["FINETUNE_GPUS"] == "2"
    assert "FINETUNE_GPUS" not in variables(deployment(served(local=template), huggingFace={"gpus": 0}))
    assert "FINETUNE_GPUS" not in variables(deployment(served("vLLM"), huggingFace={"gpus": 2}))


def test_the_connections_pod_template_reaches_servers() -> None:
    made = deployment(served(local={"podTemplate": TEMPLATE}))
    assert pod_of(made)["runtimeClassName"] == "nvidia"
    assert made["spec"]["template"]["metadata"]["labels"]["team"] == "a"


# Objects of our own kinds.


def test_a_model_made_by_its_first_job_has_every_default_and_no_owner() -> None:
    made = fine_tuned_model.build("team-a", "sentiment")
    assert FineTunedModelSpec.model_validate(made["spec"]) == FineTunedModelSpec()
    assert "ownerReferences" not in made["metadata"]


def test_the_automatic_deployment_follows_the_active_version() -> None:
    template = {"huggingFace": {"gpus": 1}, "deletionPolicy": "Retain"}
    spec = FineTunedModelSpec.model_validate({"deployment": {"template": template}})
    made = model_deployment.build(owner("FineTunedModel", "sentiment"), spec)
    read = ModelDeploymentSpec.model_validate(made["spec"])
    assert (read.model_ref.name, read.version, read.deletion_policy) == ("sentiment", "Active", "Retain")
    assert read.hugging_face is not None
    assert read.hugging_face.gpus == 1
    is_owned(made, "FineTunedModel")
