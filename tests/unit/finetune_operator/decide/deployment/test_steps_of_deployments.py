"""What a ModelDeployment tells to do next: never what is to be done about a job."""

import re

import pytest

from finetune_api.job_status import Failure
from finetune_api.reasons import Reason
from finetune_operator.decide.deployment.decision import decide, not_served
from finetune_operator.decide.deployment.server_state import Serving
from tests.unit.finetune_operator.decide.deployment.given_deployments import view
from tests.unit.finetune_operator.decide.given import condition

OF_DEPLOYMENTS = [
    Reason.BUCKET_NOT_FOUND, Reason.CONNECTION_NOT_FOUND, Reason.CONTAINER_CONFIG_INVALID, Reason.CREDENTIALS_INVALID,
    Reason.DELETED_AT_PROVIDER, Reason.DEPLOYMENT_NOT_FOUND, Reason.EXPIRED, Reason.IMAGE_PULL_FAILED,
    Reason.NAMESPACE_NOT_ALLOWED, Reason.POD_NOT_STARTED, Reason.POD_REJECTED, Reason.PROVIDER_BUSY,
    Reason.PROVIDER_REFUSED, Reason.PROVIDER_UNAVAILABLE, Reason.QUOTA_EXCEEDED, Reason.RATE_LIMITED,
    Reason.ROLE_NOT_USABLE, Reason.SECRET_NOT_FOUND, Reason.SIDECAR_FAILED, Reason.SPEC_INVALID, Reason.UNSCHEDULABLE,
    Reason.VERSION_NOT_FOUND, Reason.VOLUME_UNAVAILABLE,
]  # fmt: skip
"""What can be in the way of a deployment, and of a job too."""


@pytest.mark.parametrize("reason", OF_DEPLOYMENTS)
def test_what_is_to_be_done_about_a_deployment_is_not_what_is_to_be_done_about_a_job(reason: Reason) -> None:
    serving = Serving("Failing", 2, 0, Failure.because(reason, "said"))
    for decision in (decide(view(serving)), not_served(view(serving), Failure.because(reason, "said"))):
        told = next(one.message for one in decision.status.conditions or () if one.type == "Ready")
        assert told.count("said") == 1
        assert not re.search("the job|a job is|jobs", told)


def test_a_deployment_cannot_name_another_connection_than_its_versions_and_is_not_told_to() -> None:
    told = condition(decide(view(connections={})).status, "Ready").message
    assert told.endswith(
        "create it again as it was, or pin another version (spec.activeVersion of the FineTunedModel)."
    )
