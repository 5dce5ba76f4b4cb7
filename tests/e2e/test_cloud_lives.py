"""A model's whole life at each provider outside of the cluster: operator and check in pods, the provider simulated.

The simulators are threads of this process on the cluster's host address, which pods reach: real HTTP, real SDKs.
"""

import json
import os
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from decimal import Decimal
from pathlib import Path

import pytest

from tests.cluster import Cluster, images
from tests.e2e.conftest import NAMESPACE
from tests.e2e.site import Site
from tests.lives import clouds
from tests.lives.clouds import Cloud
from tests.lives.life import Life
from tests.simulators.aws.moto import moto
from tests.simulators.certificates import Tls

WHOLE = pytest.mark.skipif(not os.environ.get("FINETUNE_WHOLE_LIVES"), reason="half a minute: FINETUNE_WHOLE_LIVES=1")
PROVIDERS = ("openai", "bedrock", pytest.param("azure", marks=WHOLE), pytest.param("sagemaker", marks=WHOLE))
DATA = {split: {"uri": f"pvc://data/{split}.jsonl"} for split in ("train", "validation")}


@pytest.fixture(scope="module")
def team(operator: Cluster, volumes: Path) -> Iterator[Site]:
    """A namespace with data."""
    site = Site(operator, "cloud-lives", volumes / "cloud-lives", volumes / "no-models")
    site.make()
    site.write_rows("train.jsonl", 24)
    site.write_rows("validation.jsonl", 8, start=1000)
    yield site
    # What a life that broke off has left would wait for its provider for ever.
    kinds = "finetunejobs,finetunedmodels,modeldeployments"
    operator.kubectl("-n", site.name, "annotate", kinds, "--all", "finetune.dev/abandon=true")
    site.remove()


@pytest.fixture(scope="module")
def s3(operator: Cluster) -> Iterator[str]:
    """S3 that pods reach."""
    with moto(operator.addresses.host) as url:
        yield url


@pytest.fixture
def cloud(request: pytest.FixtureRequest, operator: Cluster, provider_tls: Tls) -> Iterator[Cloud]:
    """The provider that the test is about."""
    host = operator.addresses.host
    with ExitStack() as stack:
        match request.param:
            case "azure":
                yield stack.enter_context(clouds.azure(host, provider_tls))
            case "bedrock" | "sagemaker" as name:
                yield stack.enter_context(getattr(clouds, name)(host, request.getfixturevalue("s3")))
            case _:
                yield stack.enter_context(clouds.openai(host))


@pytest.mark.parametrize("cloud", PROVIDERS, indirect=True)
def test_a_model_is_tuned_served_renewed_and_deleted_and_nothing_is_left(
    team: Site, cloud: Cloud, built: images.BuiltImages
) -> None:
    life = Life(team.cluster, cloud, team.name, operator=NAMESPACE, name=f"at-{cloud.name}")
    life.connect(checkPod={"image": built.check})
    life.make_model()

    first = life.tune(f"{life.name}-1", DATA)
    assert (first["modelVersion"], first["dataset"]["train"]["rows"]) == (1, 24)
    assert first["loss"]["train"]
    cost = life.serves(1).get("cost", {"perHour": "0.00"})
    assert cost["perHour"] == f"{cloud.per_hour:.2f}"
    assert life.ask(QUESTION) == (ANSWER if cloud.knows_its_data else QUESTION)
    life.pass_an_hour()

    second = life.tune(f"{life.name}-2", DATA)
    assert second["modelVersion"] == 2
    life.serves(2)
    assert life.ask(QUESTION) == (ANSWER if cloud.knows_its_data else QUESTION)
    assert cloud.undeploys is None or was_asked_before_the_old_one_went(cloud)
    life.pass_an_hour()

    assert_no_credential_in(team)
    life.end()
    assert (cloud.simulator.left(), cloud.objects(), cloud.simulator.ledger.running()) == ([], [], [])
    assert cloud.simulator.count(cloud.creates) == 2
    bill = bill_of(cloud)
    assert bill["training"] > 0
    assert bill["hosting"] == 3 * cloud.per_hour  # the first while the second was tuned, too
    assert cloud.simulator.defects == []


QUESTION, ANSWER = "row 7: what colour is the sky of day 7?", "blue"


def was_asked_before_the_old_one_went(cloud: Cloud) -> bool:
    """Whether the last call that asked came before the call that ended the old deployment."""
    calls = [call.operation for call in cloud.simulator.calls if call.committed]
    return cloud.asks in calls[: calls.index(str(cloud.undeploys))]


def bill_of(cloud: Cloud) -> dict[str, Decimal]:
    """Dollars by what they are for."""
    bill: dict[str, Decimal] = defaultdict(Decimal)
    for line in cloud.simulator.ledger.lines():
        bill[line.what] += line.amount
    return bill


def assert_no_credential_in(team: Site) -> None:
    """Of the team's objects, events and pods' logs; test_whole_run looks at what the operator wrote and logged."""
    kinds = "pods,jobs,events,configmaps,secrets,finetunejobs,finetunedmodels,modeldeployments"
    told = {"objects": json.dumps(team.cluster.get("-n", team.name, kinds))}
    for pod in team.pods("app.kubernetes.io/component=check"):
        name = pod["metadata"]["name"]
        told[name] = team.cluster.kubectl("-n", team.name, "logs", name)
    assert len(told) > 1
    assert [place for place, text in told.items() if any(canary in text for canary in clouds.CANARIES)] == []
