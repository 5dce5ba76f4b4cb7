"""Artifacts in an object store: what pods are told, which keys they get, and that they mount no claim for it."""

from typing import Any

import pytest

from finetune_api.model import ModelVersion
from finetune_api.trainer import TrainerJob
from finetune_operator.desired import prune_job, training_job
from tests.unit.finetune_operator.decide.given import job_spec
from tests.unit.finetune_operator.decide.given_models import version
from tests.unit.finetune_operator.desired.given_children import (
    attempt,
    container_of,
    deployment,
    mounts,
    owner,
    pod_of,
    served,
    variables,
)
from tests.unit.finetune_operator.desired.given_pods import hugging_face, restricted

FOLDER = "s3://tuned/models/team-a/sentiment/job-3"
STORE = {
    "uri": "s3://tuned/models",
    "endpointURL": "https://s3.example.com",
    "secretRef": {"name": "artifact-keys"},
}
KEYS = {"prefix": "FINETUNE_ARTIFACTS_", "secretRef": {"name": "artifact-keys"}}
DATA_KEYS = {"prefix": "FINETUNE_DATA_", "secretRef": {"name": "data-keys"}}


def trainer(active: training_job.Active | None = None, store: Any = None, **fields: Any) -> dict[str, Any]:
    connection = hugging_face(artifacts=store or STORE)
    number = attempt(2).model_copy(update={"output_uri": FOLDER, "active": active})
    return training_job.build(owner(), job_spec(**fields), connection, number)


def told(manifest: dict[str, Any]) -> TrainerJob:
    return TrainerJob.model_validate_json(variables(manifest)["FINETUNE_JOB"])


def test_a_trainer_works_on_its_scratch_and_is_told_where_its_output_is_kept() -> None:
    made = trainer()
    read = told(made)
    assert read.output == "/tmp/output"
    assert read.store is not None
    assert (read.store.uri, read.store.endpoint) == (FOLDER, "https://s3.example.com")
    assert read.artifact_uri == f"{FOLDER}/model-2"
    assert not [path for path in mounts(made) if "claims/tuned" in path]
    restricted(pod_of(made))


def test_keys_of_data_and_artifacts_do_not_mix() -> None:
    dataset = {"train": {"uri": "s3://data/rows.csv"}, "secretRef": {"name": "data-keys"}}
    assert container_of(trainer(dataset=dataset))["envFrom"] == [DATA_KEYS, KEYS]
    assert container_of(trainer())["envFrom"] == [KEYS]
    assert "envFrom" not in container_of(trainer(store={"uri": "s3://tuned"})), "the service account has them"


def test_an_active_version_in_a_store_is_fetched_by_the_trainer() -> None:
    active = training_job.Active(version=3, artifact_uri=f"{FOLDER}/model-1", sha256="ab")
    read = told(trainer(active)).active_version
    assert read is not None
    assert read.store is not None
    assert (read.folder, read.store.uri, read.sha256) == (None, f"{FOLDER}/model-1", "ab")


def test_a_job_that_began_on_a_claim_stays_there() -> None:
    on_claim = attempt(2)
    made = training_job.build(owner(), job_spec(), hugging_face(artifacts=STORE), on_claim)
    assert told(made).store is None
    assert mounts(made)["/var/lib/finetune/claims/models"] is False


def in_store(**artifact: Any) -> ModelVersion:
    changes = {"uri": f"{FOLDER}/model-2", "kind": "Adapter", "sha256": "cd"} | artifact
    return version(3).model_copy(update={"artifact": version(3).artifact.model_copy(update=changes)})


@pytest.mark.parametrize("engine", ["Transformers", "vLLM"])
def test_a_server_gets_the_verified_weights_before_it_starts(engine: Any) -> None:
    made = deployment(served(engine, {"artifacts": STORE, "checkImage": "check:1"}, artifact=in_store().artifact))
    fetch, *others = pod_of(made)["initContainers"]
    assert [one["name"] for one in others] == (["base"] if engine == "vLLM" else [])
    folder = "/var/lib/finetune/fetched/model"
    assert fetch["args"] == [
        *("fetch", f"{FOLDER}/model-2", "--to", folder, "--sha256", "cd"),
        *("--endpoint", "https://s3.example.com"),
    ]
    assert fetch["image"] == "check:1"
    assert fetch["envFrom"] == [KEYS]
    assert [sorted(fetch["resources"][kind]) for kind in ("requests", "limits")] == [["cpu", "memory"]] * 2, "of quotas"
    assert fetch["volumeMounts"] == container_of(made)["volumeMounts"]
    assert any(folder in argument for argument in container_of(made)["args"])
    assert "envFrom" not in container_of(made), "the server needs no keys"
    restricted(pod_of(made))


def test_what_runs_before_a_server_is_within_the_limits_that_the_server_is_within() -> None:
    """A LimitRange that takes the server takes the pod; and both have the room one after the other."""
    own = {"requests": {"memory": "300Mi"}, "limits": {"memory": "500Mi", "nvidia.com/gpu": "1"}}
    made = deployment(
        served("vLLM", {"artifacts": STORE}, artifact=in_store().artifact), huggingFace={"resources": own}
    )
    plain = {"requests": {"memory": "300Mi"}, "limits": {"memory": "500Mi"}}
    assert [one["resources"] for one in pod_of(made)["initContainers"]] == [plain, plain]


def test_a_server_of_weights_on_a_claim_fetches_nothing() -> None:
    assert "initContainers" not in pod_of(deployment(served(local={"artifacts": STORE})))


def test_a_prune_job_deletes_the_folder_of_the_job_in_its_store() -> None:
    made = prune_job.build(owner("FineTunedModel", "sentiment"), in_store(), hugging_face(artifacts=STORE))
    assert made is not None
    root = "s3://tuned/models/team-a/sentiment"
    assert container_of(made)["args"] == ["prune", FOLDER, "--root", root, "--endpoint", "https://s3.example.com"]
    assert container_of(made)["envFrom"] == [KEYS]
    assert set(mounts(made)) == {"/tmp"}
    restricted(pod_of(made))


@pytest.mark.parametrize("uri", ["s3://tuned/model-1", "s3://tuned/models/team-b/sentiment/job-1/model-1"])
def test_nothing_else_of_a_store_is_deleted_on_a_pods_word(uri: str) -> None:
    assert prune_job.build(owner("FineTunedModel", "sentiment"), in_store(uri=uri), hugging_face()) is None
