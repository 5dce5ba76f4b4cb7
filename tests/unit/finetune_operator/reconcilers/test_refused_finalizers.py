"""Changes of finalizers that a policy or a webhook refuses: paced as other writes are, and made once it has gone."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta

import pytest

from finetune_api.names import WEIGHTS_FINALIZER
from finetune_operator.runtime.errors import Forbidden
from finetune_operator.runtime.kube import FINE_TUNED_MODELS
from tests.unit.finetune_operator.reconcilers.fake_cluster import MODEL, Cluster
from tests.unit.finetune_operator.reconcilers.versions import with_version


def freeze(cluster: Cluster) -> None:
    """Nobody may change a model's metadata."""
    cluster.kube.refusals["patch", "finetunedmodels"] = Forbidden(403, "Forbidden", "frozen")


def label(cluster: Cluster, labels: dict[str, str]) -> None:
    metadata = cluster.kube.objects[FINE_TUNED_MODELS, "team-a", "sentiment"]["metadata"]
    cluster.kube.change(FINE_TUNED_MODELS, "sentiment", metadata=metadata | {"labels": labels})


async def with_finalizer_to_put_on() -> Cluster:
    cluster = await with_version()
    spec = cluster.kube.objects[FINE_TUNED_MODELS, "team-a", "sentiment"]["spec"]
    cluster.kube.change(FINE_TUNED_MODELS, "sentiment", spec=spec | {"deletionPolicy": "Delete"})
    return cluster


async def with_finalizer_to_take_off() -> Cluster:
    cluster = await with_version(deletionPolicy="Delete")
    cluster.kube.change(FINE_TUNED_MODELS, "sentiment", spec={"deletionPolicy": "Retain"})
    return cluster


async def with_finalizer_to_take_off_at_the_end() -> Cluster:
    cluster = await with_version(deletionPolicy="Delete")
    cluster.kube.change(FINE_TUNED_MODELS, "sentiment", spec={"deletionPolicy": "Retain"})
    cluster.kube.mark_deleted(FINE_TUNED_MODELS, "sentiment")
    return cluster


@pytest.mark.parametrize(
    "state", [with_finalizer_to_put_on, with_finalizer_to_take_off, with_finalizer_to_take_off_at_the_end]
)
async def test_a_finalizer_that_may_not_be_changed_is_not_asked_for_at_each_look(
    state: Callable[[], Awaitable[Cluster]], caplog: pytest.LogCaptureFixture
) -> None:
    cluster = await state()
    freeze(cluster)

    def asked() -> tuple[int, int]:
        return cluster.kube.asked("patch", "finetunedmodels"), caplog.text.count("frozen")

    async def look() -> None:
        cluster.wake(MODEL)
        with suppress(Forbidden):
            await cluster.settle()

    before = asked()[0]
    for _ in range(10):
        await look()
    often = asked()
    assert often[0] - before <= 4, "a few times at once, and then every half minute"
    assert often[1] == often[0] - before, "and the log has a line for each time, not for each look"
    cluster.now += timedelta(seconds=30)
    await look()
    assert asked() == (often[0] + 1, often[1] + 1)


async def test_a_label_that_a_policy_asks_for_has_the_finalizer_changed_at_once() -> None:
    cluster = await with_finalizer_to_put_on()
    freeze(cluster)
    for _ in range(10):
        cluster.wake(MODEL)
        with suppress(Forbidden):
            await cluster.settle()
    cluster.kube.refusals.clear()
    label(cluster, {"team": "a"})
    await cluster.settle()
    metadata = cluster.kube.objects[FINE_TUNED_MODELS, "team-a", "sentiment"]["metadata"]
    assert metadata["finalizers"] == [WEIGHTS_FINALIZER]


async def test_labels_that_somebody_writes_again_and_again_do_not_have_what_is_refused_asked_for_as_often() -> None:
    cluster = await with_finalizer_to_put_on()
    freeze(cluster)
    for turn in range(30):
        label(cluster, {"turn": str(turn)})
        with suppress(Forbidden):
            await cluster.settle()
    assert cluster.kube.asked("patch", "finetunedmodels") <= 8


async def test_a_finalizer_that_could_not_be_put_on_is_put_on_when_nothing_stands_in_its_way() -> None:
    """Nobody tells when a policy has gone, and a model that is deleted without it leaves its weights."""
    cluster = await with_finalizer_to_put_on()
    freeze(cluster)
    await cluster.settle()
    assert not cluster.kube.objects[FINE_TUNED_MODELS, "team-a", "sentiment"]["metadata"].get("finalizers")
    cluster.kube.refusals.clear()
    await cluster.wait(60)
    assert cluster.kube.objects[FINE_TUNED_MODELS, "team-a", "sentiment"]["metadata"]["finalizers"] == [
        WEIGHTS_FINALIZER
    ]
