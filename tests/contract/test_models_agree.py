"""What the API server takes the models read, and the same; what it refuses `finetune-trainer check` refuses.

Manifests are made by hypothesis: rules stand twice, as CEL for the one and in Python for the others.
"""

import re
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, assume, event, given, settings
from kubernetes.client import ApiException

from finetune_api.base import ApiModel
from finetune_api.connection import LLMConnectionSpec
from finetune_api.deployment import ModelDeploymentSpec
from finetune_api.job import FineTuneJobSpec
from finetune_api.manifest import Manifest
from finetune_api.model import FineTunedModelSpec
from finetune_trainer.errors import TrainerError
from finetune_trainer.job.manifest import read_all
from tests.cluster.errors import ClusterError
from tests.contract.any_manifest import manifests
from tests.contract.conftest import Server
from tests.contract.manifests import AZURE, BEDROCK, DEPLOYMENT, JOB, LOCAL, MODEL, OPENAI, SAGEMAKER

pytestmark = pytest.mark.cluster

MODELS: dict[str, type[ApiModel]] = {
    "LLMConnection": LLMConnectionSpec,
    "FineTuneJob": FineTuneJobSpec,
    "FineTunedModel": FineTunedModelSpec,
    "ModelDeployment": ModelDeploymentSpec,
}
MANY: Any = settings(max_examples=200, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
"""A third of them is taken."""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("manifests") / "manifest.json"


def answer(server: Server, manifest: Manifest) -> Manifest | str:
    """The object as it would be stored, or the refusal."""
    try:
        return server.accept(manifest)
    except ApiException as error:
        return str(error.body)


def complaint(file: Path) -> str:
    """What `check` has to say against a manifest; "" for nothing."""
    try:
        read_all(file)
    except TrainerError as error:
        return error.message
    return ""


@MANY
@given(manifests())
def test_whatever_the_api_server_takes_the_models_read_the_same(server: Server, manifest: Manifest) -> None:
    model, stored = MODELS[manifest["kind"]], answer(server, manifest)
    event("refused" if isinstance(stored, str) else "taken")
    if not isinstance(stored, str):
        assert model.model_validate(stored["spec"]) == model.model_validate(manifest.get("spec", {}))


@MANY
@given(manifests(JOB))
def test_check_takes_of_jobs_what_the_api_server_takes(server: Server, file: Path, manifest: Manifest) -> None:
    require_agreement(server, file, manifest)


@MANY
@given(manifests(MODEL, DEPLOYMENT, DEPLOYMENT, LOCAL, OPENAI, AZURE, BEDROCK, SAGEMAKER))
def test_check_takes_of_other_kinds_what_the_api_server_takes(server: Server, file: Path, manifest: Manifest) -> None:
    require_agreement(server, file, manifest)


def require_agreement(server: Server, file: Path, manifest: Manifest) -> None:
    written = orjson.dumps(manifest)
    assume(b"file://" not in written)  # a place of data for `check` alone
    file.write_bytes(written)
    stored, said = answer(server, manifest), complaint(file)
    event("refused" if isinstance(stored, str) else "taken")
    assert isinstance(stored, str) == bool(said), f"{manifest}: check: {said!r}, API server: {stored}"


def test_check_warns_of_each_empty_field_that_server_side_apply_refuses_and_of_no_other(
    server: Server, file: Path
) -> None:
    """Of those that a job can leave out; `preference` and the like say much when they are empty, and are refused."""
    needed = {"connectionRef", "baseModel", "modelRef", "dataset", "preference"}
    empty = {info.alias or name: None for name, info in FineTuneJobSpec.model_fields.items()}
    nulls = {name: None for name in empty if name not in needed}
    below = {"evaluation": {"judge": None, "metrics": None}, "hyperparameters": {"epochs": None, "learningRate": None}}
    for more in (nulls, below):
        job = {**JOB, "spec": {**JOB["spec"], **more}}
        file.write_bytes(orjson.dumps(job))
        with pytest.raises(ClusterError) as refused:
            server.kubectl("apply", "--server-side", "--dry-run=server", f"--filename={file}")
        told = set(re.findall(r"(spec[.\w]+): Invalid value: \"null\"", str(refused.value)))
        (warnings,) = read_all(file)[2].values()
        assert told
        assert {one.partition(":")[0] for one in warnings} == told
