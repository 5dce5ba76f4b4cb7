"""A model's whole life at each provider outside of the cluster: operator and check in pods, the provider simulated.

The simulators are threads of this process on the cluster's host address, which pods reach: real HTTP, real SDKs. So are
the lives, all at once, for each mostly waits for its pods.
"""

from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from decimal import Decimal
from pathlib import Path

import pytest

from tests.cluster import Cluster, images
from tests.e2e.conftest import NAMESPACE
from tests.e2e.site import Site
from tests.e2e.written import written
from tests.lives import clouds
from tests.lives.clouds import Cloud
from tests.lives.life import Life
from tests.simulators.aws.moto import moto
from tests.simulators.certificates import Tls

PROVIDERS = ("openai", "azure", "bedrock", "sagemaker")
DATA = {split: {"uri": f"pvc://data/{split}.jsonl"} for split in ("train", "validation")}
MEASURED = dict.fromkeys(("openai", "azure", "bedrock"), DATA | {"test": {"uri": "pvc://data/test.jsonl"}})
"""Where models are asked from here: a pod measures each before it is a version."""
DEPLOYED = {"azure": 4, "bedrock": 3, "sagemaker": 2}
"""Deployments in all: two versions, and what the first evaluation asks: the tuned model, at Azure its base too."""
QUESTION, ANSWER = "row 7: what colour is the sky of day 7?", "blue"


@pytest.fixture(scope="module")
def team(operator: Cluster, volumes: Path) -> Iterator[Site]:
    """A namespace with data."""
    site = Site(operator, "cloud-lives", volumes / "cloud-lives", volumes / "no-models")
    site.make()
    site.write_rows("train.jsonl", 24)
    site.write_rows("validation.jsonl", 8, start=1000)
    site.write_rows("test.jsonl", 8)
    yield site
    # What a life that broke off has left would wait for its provider for ever.
    kinds = "finetunejobs,finetunedmodels,modeldeployments"
    operator.kubectl("-n", site.name, "annotate", kinds, "--all", "finetune.dev/abandon=true")
    operator.kubectl("-n", site.name, "delete", kinds, "--all", "--timeout=60s")
    site.remove()


@pytest.fixture(scope="module")
def lives(team: Site, provider_tls: Tls, built: images.BuiltImages) -> Iterator[dict[str, Future[None]]]:
    """What becomes of each provider's life."""
    host = team.cluster.addresses.host
    with ExitStack() as stack, pytest.MonkeyPatch.context() as environment:
        for name, value in {**clouds.CALLER, "SSL_CERT_FILE": str(provider_tls.authority)}.items():
            environment.setenv(name, value)
        s3 = stack.enter_context(moto(host))
        found = {
            "openai": stack.enter_context(clouds.openai(host)),
            "azure": stack.enter_context(clouds.azure(host, provider_tls)),
            "bedrock": stack.enter_context(clouds.bedrock(host, s3)),
            "sagemaker": stack.enter_context(clouds.sagemaker(host, s3)),
        }
        with ThreadPoolExecutor(len(found)) as threads:
            yield {name: threads.submit(play, team, cloud, built.check) for name, cloud in found.items()}


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_model_is_tuned_served_renewed_and_deleted_and_nothing_is_left(
    lives: dict[str, Future[None]], provider: str
) -> None:
    lives[provider].result()


def test_their_credentials_are_in_nothing_that_the_operator_says(
    lives: dict[str, Future[None]], operator: Cluster
) -> None:
    """As in test_whole_run, but before other tests end these pods of the operator, and their logs."""
    assert [life.exception() for life in lives.values()] == [None] * len(PROVIDERS)
    told = list(written(operator))
    assert {place.partition(" of ")[0] for place, _ in told} == {"audit log", "log", "metrics"}
    assert any("cannot be asked about" in text for place, text in told if place.startswith("log"))
    assert [place for place, text in told if any(canary in text for canary in clouds.CANARIES)] == []


def play(team: Site, cloud: Cloud, check_image: str) -> None:
    """A life from its first job to the bill."""
    life = Life(team.cluster, cloud, team.name, operator=NAMESPACE, name=f"at-{cloud.name}")
    life.connect(checkPod={"image": check_image})
    life.make_model()

    data = MEASURED.get(cloud.name, DATA)
    first = life.tune(f"{life.name}-1", data)
    assert (first["modelVersion"], first["dataset"]["train"]["rows"]) == (1, 24)
    assert first["loss"]["train"]
    assert first.get("evaluation", {}).get("verdict") == ("Better" if "test" in data else None)
    cost = life.serves(1)["cost"]
    assert cost.get("perHour", "0.00") == f"{cloud.per_hour:.2f}"
    assert {"perHour", "answers"} & set(cost), "billed by the hour, by tokens, or by both"
    assert life.ask(QUESTION) == (ANSWER if cloud.knows_its_data else QUESTION)
    life.pass_an_hour()

    # Once is enough where models are deployed to be asked: calls on deployments are the versions' from here on.
    second = life.tune(f"{life.name}-2", DATA if cloud.deploys else data, trouble=True)
    assert second["modelVersion"] == 2
    life.serves(2)
    assert life.ask(QUESTION) == (ANSWER if cloud.knows_its_data else QUESTION)
    assert cloud.undeploys is None or new_answered_before_old_went(cloud)
    life.pass_an_hour()

    assert_no_credential_in(team, life.name)
    life.end()
    assert (cloud.simulator.left(), cloud.objects(), cloud.simulator.ledger.running()) == ([], [], [])
    assert cloud.simulator.count(cloud.creates) == 2
    bill = bill_of(cloud)
    assert bill["training"] > 0
    assert bill["hosting"] == 3 * cloud.per_hour  # the first while the second was tuned, too
    assert (cloud.simulator.defects, cloud.simulator.faults.pending()) == ([], [])


def new_answered_before_old_went(cloud: Cloud) -> bool:
    """Whether somebody asked after the last deployment was made and before the one before it was deleted."""
    calls = [call.operation for call in cloud.simulator.calls if call.committed]
    made = [place for place, operation in enumerate(calls) if operation == cloud.deploys]
    last = made[-1]
    return len(made) == DEPLOYED[cloud.name] and cloud.asks in calls[last : calls.index(str(cloud.undeploys), last)]


def bill_of(cloud: Cloud) -> dict[str, Decimal]:
    """Dollars by what they are for."""
    bill: dict[str, Decimal] = defaultdict(Decimal)
    for line in cloud.simulator.ledger.lines():
        bill[line.what] += line.amount
    return bill


def assert_no_credential_in(team: Site, model: str) -> None:
    """Of the team's objects, events and pods' logs."""
    kinds = "pods,jobs,events,configmaps,secrets,finetunejobs,finetunedmodels,modeldeployments"
    checks = f"app.kubernetes.io/component=check,finetune.dev/model={model}"
    told = {
        "objects": team.cluster.kubectl("-n", team.name, "get", kinds, "-o", "yaml"),
        "logs": team.cluster.kubectl("-n", team.name, "logs", "-l", checks, "--tail=-1"),
    }
    assert len(team.pods(checks)) == 2
    assert [place for place, text in told.items() if any(canary in text for canary in clouds.CANARIES)] == []
