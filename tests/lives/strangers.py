"""Events at a provider beside the operator: failures, other users' deletions and deployments, missing capacity."""

from datetime import datetime
from typing import Any

from tests.lives.clouds import Cloud
from tests.simulators.azure import AzureSimulator
from tests.simulators.bedrock import BedrockSimulator
from tests.simulators.bedrock.serving import Serving
from tests.simulators.openai import OpenAISimulator
from tests.simulators.openai.settings import Failure
from tests.simulators.sagemaker import SageMakerSimulator
from tests.unit.finetune_operator.reconcilers.bedrock import client

BY_HAND = "by-hand"
WHY = "The rack is on fire."


def fail_next_job(cloud: Cloud) -> None:
    """Let the next job fail after its creation."""
    tuned_elsewhere = isinstance(cloud.simulator, BedrockSimulator | SageMakerSimulator)
    cloud.simulator.set(fail_next_job=WHY if tuned_elsewhere else Failure(message=WHY))


def fail_next_deployment(cloud: Cloud) -> None:
    """Let the next deployment fail after its creation."""
    what = "endpoint" if isinstance(cloud.simulator, SageMakerSimulator) else "deployment"
    cloud.simulator.set(**{f"fail_next_{what}": WHY})


def make_room(cloud: Cloud, rooms: int) -> None:
    """Give the account capacity for this many hourly billed deployments."""
    simulator = cloud.simulator
    if isinstance(simulator, AzureSimulator):
        simulator.set(capacity=rooms)
    elif isinstance(simulator, BedrockSimulator):
        simulator.set(units_without_commitment=rooms)
    else:
        simulator.set(instance_limits={"ml.g5.xlarge": rooms})


def delete_what_serves(cloud: Cloud) -> None:
    """Another user deletes all deployments; of SageMaker's only the endpoint."""
    simulator = cloud.simulator
    with simulator.lock:
        if isinstance(simulator, AzureSimulator):
            for name in list(simulator.deployments.found):
                simulator.deployments.delete(name)
        elif isinstance(simulator, BedrockSimulator):
            for found in [*simulator.account.deployments.values(), *simulator.account.throughputs.values()]:
                simulator.ledger.stop(found.arn)
            simulator.account.deployments.clear()
            simulator.account.throughputs.clear()
        elif isinstance(simulator, SageMakerSimulator):
            for name in list(simulator.hosting.endpoints):
                simulator.hosting.delete_endpoint({"EndpointName": name})
        simulator.advance(0)


def delete_the_jobs(cloud: Cloud) -> None:
    """Another user deletes every running job."""
    simulator = cloud.simulator
    assert isinstance(simulator, OpenAISimulator | AzureSimulator)
    with simulator.lock:
        for job in simulator.jobs.jobs.values():
            job.turn += 1
        simulator.jobs.jobs.clear()


def deploy(cloud: Cloud, artifact: dict[str, Any]) -> None:
    """Another user deploys a version, as `BY_HAND`."""
    simulator = cloud.simulator
    with simulator.lock:
        if isinstance(simulator, AzureSimulator):
            served = {"name": artifact["providerModelID"], "version": "1"}
            request = {"sku": {"name": "Standard", "capacity": 1}, "properties": {"model": served}}
            simulator.deployments.put(BY_HAND, request, simulator.models)
        elif isinstance(simulator, BedrockSimulator):
            found = simulator.account.models[artifact["providerModelID"]]
            Serving(simulator.account).deploy({"modelArn": found.arn, "modelDeploymentName": BY_HAND})
        elif isinstance(simulator, SageMakerSimulator):
            _make_endpoint(simulator, artifact["uri"])
        simulator.advance(0)


def _make_endpoint(simulator: SageMakerSimulator, weights: str) -> None:
    source = {"S3DataSource": {"S3Uri": weights, "S3DataType": "S3Prefix", "CompressionType": "None"}}
    variant = {"VariantName": "AllTraffic", "ModelName": BY_HAND, "InstanceType": "ml.g5.xlarge"}
    variants = [variant | {"InitialInstanceCount": 1}]
    simulator.hosting.create_model({"ModelName": BY_HAND, "PrimaryContainer": {"ModelDataSource": source}})
    simulator.hosting.create_config({"EndpointConfigName": BY_HAND, "ProductionVariants": variants})
    simulator.hosting.create_endpoint({"EndpointName": BY_HAND, "EndpointConfigName": BY_HAND})


def count_a_question(cloud: Cloud, served: str, asked_at: datetime) -> None:
    """Record a request in moto's CloudWatch; Azure's simulator counts requests itself."""
    simulator = cloud.simulator
    if isinstance(simulator, AzureSimulator):
        return
    assert isinstance(simulator, BedrockSimulator | SageMakerSimulator)
    of_endpoint = isinstance(simulator, SageMakerSimulator)
    named = {"EndpointName": served, "VariantName": "AllTraffic"} if of_endpoint else {"ModelId": served}
    dimensions = [{"Name": name, "Value": value} for name, value in named.items()]
    point = {"MetricName": "Invocations", "Dimensions": dimensions, "Value": 1, "Timestamp": asked_at}
    moto = client("cloudwatch", str(simulator.settings.s3_endpoint))
    moto.put_metric_data(Namespace="AWS/SageMaker" if of_endpoint else "AWS/Bedrock", MetricData=[point])
