"""What a ModelDeployment is to serve, or why it cannot: what somebody has changed since the version was made."""

import pytest

from finetune_api.connection import LLMConnectionSpec
from finetune_api.deployment import ModelDeploymentSpec
from finetune_api.job_status import ArtifactRef, Failure
from finetune_api.model import FineTunedModelStatus
from finetune_api.reasons import Reason
from finetune_operator.decide.deployment.serving_target import Target, find_target
from tests.unit.finetune_operator.decide.deployment.given_deployments import spec
from tests.unit.finetune_operator.decide.given import connection, openai_connection
from tests.unit.finetune_operator.decide.given_models import version


def found(
    artifact: ArtifactRef, to: LLMConnectionSpec | None = None, wanted: ModelDeploymentSpec | None = None
) -> Target | Failure:
    only = version(2).model_copy(update={"artifact": artifact})
    model = FineTunedModelStatus(active_version=2, versions=[only])
    return find_target(wanted or spec(), model, {only.connection: to or connection()})


def test_the_base_model_does_not_answer_for_what_a_provider_has_tuned_where_the_connection_is_another_now() -> None:
    failure = found(ArtifactRef(provider_model_id="ft:llama"))
    assert isinstance(failure, Failure)
    assert failure.reason is Reason.CONNECTION_NOT_FOUND
    assert failure.message == (
        "LLMConnection local leads to huggingFace now, and version 2 is at the provider that has tuned it"
    )
    assert failure.next_step is not None
    assert "restore the connection" in failure.next_step


@pytest.mark.parametrize("uri", ["pvc://models/team-a/sentiment", None])
def test_weights_of_this_cluster_are_served_on_it(uri: str | None) -> None:
    target = found(ArtifactRef(uri=uri))
    assert isinstance(target, Target)
    assert target.engine == "Transformers"


def test_a_place_that_somebody_has_written_into_status_is_no_place_and_says_what_to_do() -> None:
    failure = found(ArtifactRef(uri="pvc://models/../other"))
    assert isinstance(failure, Failure)
    assert failure.reason is Reason.VERSION_NOT_FOUND
    assert failure.next_step == "Bring that status back from a backup, or pin another version (spec.activeVersion)."


def test_a_key_of_a_server_means_nothing_at_a_provider() -> None:
    keyed = spec(apiKeySecretRef={"name": "key", "key": "api-key"})
    failure = found(ArtifactRef(provider_model_id="ft:gpt"), openai_connection(), keyed)
    assert isinstance(failure, Failure)
    assert failure.message.startswith("spec.apiKeySecretRef: version 2 is served by openAI")
