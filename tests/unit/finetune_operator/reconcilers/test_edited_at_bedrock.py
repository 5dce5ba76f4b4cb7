"""What somebody makes a deployment at Bedrock answer with, beside the operator: told, and mended when that is asked."""

from typing import Any

from finetune_operator.runtime.kube import MODEL_DEPLOYMENTS
from tests.simulators.clock import HOUR
from tests.simulators.conftest import s3_endpoint, start
from tests.unit.finetune_operator.reconcilers.bedrock import conversations
from tests.unit.finetune_operator.reconcilers.bedrock_hosted import begin, cluster, deployed, hosts, provider
from tests.unit.finetune_operator.reconcilers.cloud import go_on
from tests.unit.finetune_operator.reconcilers.fake_cluster import DEPLOYMENT
from tests.unit.finetune_operator.reconcilers.test_reconcile_bedrock_hosted import answer

__all__ = ["cluster", "provider", "s3_endpoint", "start"]

ADDRESS = (MODEL_DEPLOYMENTS, "team-a", "sentiment")


async def test_another_model_in_its_place_is_told_and_goes_when_that_is_asked(cluster: Any, provider: Any) -> None:
    await begin(cluster)
    arn = await deployed(cluster)
    cluster.add_cloud_job("other-1", modelRef={"name": "other"})
    await cluster.settle()
    await cluster.check(conversations(answer="other-1 says"), job="other-1")
    await cluster.settle()
    await cluster.pass_time(HOUR)
    other = list(provider.account.models)[-1]
    cluster.client("bedrock").update_custom_model_deployment(customModelDeploymentIdentifier=arn, modelArn=other)
    await go_on(cluster, 1300, step=650)
    assert answer(cluster, arn) == "other-1 says 3"
    stalled, status = cluster.condition("Stalled", DEPLOYMENT), cluster.status(DEPLOYMENT)
    assert (status["phase"], stalled["reason"]) == ("Failed", "DeploymentFailed")
    assert f"serves {other} at the provider" in stalled["message"]
    assert stalled["message"].endswith("change spec.retryNonce to have it recreated.")
    spec = cluster.kube.objects[ADDRESS]["spec"]
    cluster.kube.change(MODEL_DEPLOYMENTS, "sentiment", spec={**spec, "retryNonce": "1"})
    await cluster.settle()
    again = await deployed(cluster, 1200)
    assert (answer(cluster, again), arn in hosts(provider)) == ("sentiment-1 says 3", False)
