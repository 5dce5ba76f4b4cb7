"""Builders of ModelDeployments for the tests of decisions."""

from dataclasses import replace
from typing import Any

from finetune_api.deployment import ModelDeploymentSpec, ModelDeploymentStatus
from finetune_api.model import FineTunedModelStatus
from finetune_operator.decide.deployment.decision import DeploymentView
from finetune_operator.decide.deployment.server_state import Serving
from tests.unit.finetune_operator.decide.given import NOW, connection
from tests.unit.finetune_operator.decide.given_models import version


def spec(**fields: Any) -> ModelDeploymentSpec:
    return ModelDeploymentSpec.model_validate({"modelRef": {"name": "sentiment"}} | fields)


def view(serving: Serving | None = None, served: int | None = None, **fields: Any) -> DeploymentView:
    base = DeploymentView(
        name="sentiment",
        namespace="team-a",
        generation=1,
        deleting=False,
        spec=spec(),
        spec_error="",
        status=ModelDeploymentStatus(served_version=served),
        model=FineTunedModelStatus(active_version=2, versions=[version(1), version(2)]),
        connections={"local": connection()},
        serving=serving or Serving("Absent"),
        now=NOW,
    )
    return replace(base, **fields)
