"""Runs plays concurrently, as they mostly wait for Kubernetes' own controllers, or for a Lease to expire.

A test module defines its plays in `PLAYS`; those of the selected tests all run at once, and `outcome` gives a test its
play's result as soon as that has ended.
"""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Hashable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from finetune_operator.runtime.kube import Kube
from finetune_operator.runtime.settings import Settings
from tests.chaos.site import PATIENCE, Site, make_connection
from tests.cluster.cluster import Cluster

AT_ONCE, MANY_AT_ONCE = 10, 26
"""Plays at the same time, of a sample and of all of them: two cores are then half busy."""


@dataclass(frozen=True)
class Stage:
    """The environment of a play: the control plane, its own namespace, and a folder for files and logs."""

    cluster: Cluster
    site: Site
    folder: Path

    @property
    def kube(self) -> Kube:
        """The administrator's API client."""
        return self.site.kube


Play = Callable[[Stage], Awaitable[Any]]
Name = tuple[str, Hashable]
"""Module and key of a play."""


@dataclass(frozen=True)
class Plays:
    """The plays of a module, by key."""

    beside: Mapping[Hashable, Play] = field(default_factory=dict)
    calm: Mapping[Hashable, Play] = field(default_factory=dict)
    """Timing-sensitive plays: run together, after the others."""
    alone: Mapping[Hashable, Play] = field(default_factory=dict)
    """Plays that disturb others: run one after the other, at the end."""
    always: tuple[Hashable, ...] = ()
    """Keys of plays that every test of the module is compared with."""
    compared: Mapping[Hashable, Hashable] = field(default_factory=dict)
    """By the key of a play, that of the play to compare with, which is then selected as well."""


Outcomes = Mapping[Name, Future[Any]]
"""Each play's result or exception."""
Waves = tuple[dict[Name, Play], dict[Name, Play], dict[Name, Play]]


def selected(items: Iterable[pytest.Item]) -> Waves:
    """The plays of these tests, grouped into waves."""
    found: Waves = ({}, {}, {})
    for item in items:
        plays = getattr(getattr(item, "module", None), "PLAYS", None)
        if not isinstance(plays, Plays) or "outcome" not in getattr(item, "fixturenames", ()):
            continue
        params = item.callspec.params.values() if hasattr(item, "callspec") else ()
        asked = [key for key in params if isinstance(key, Hashable)]
        for key in (*plays.always, *(plays.compared[key] for key in asked if key in plays.compared), *asked):
            for wave, some in zip(found, (plays.beside, plays.calm, plays.alone), strict=True):
                if key in some:
                    wave[item.module.__name__, key] = some[key]
    return found


@contextmanager
def performed(cluster: Cluster, waves: Waves, folder: Path, at_once: int) -> Iterator[Outcomes]:
    """Run plays while tests already check those that have ended.

    pytest sets and removes the running test's name in the environment; a play that iterates over the environment at
    that moment, to start a process or to look for proxies, would fail with a KeyError.
    """
    outcomes: Outcomes = {name: Future() for wave in waves for name in wave}

    def perform() -> None:
        try:
            asyncio.run(_perform(cluster, waves, folder, outcomes, at_once))
        finally:
            for outcome in outcomes.values():
                outcome.cancel()  # it did not run

    stage = Thread(target=perform, name="plays", daemon=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("_pytest.runner._update_current_test_var", lambda _item, _when: None)
        stage.start()
        yield outcomes
        stage.join()


async def _perform(cluster: Cluster, waves: Waves, folder: Path, outcomes: Outcomes, at_once: int) -> None:
    places = asyncio.Semaphore(at_once)
    numbers = itertools.count()

    async def one(name: Name, play: Play) -> None:
        async with places:
            own = folder / f"{name[0].rpartition('_')[2]}-{next(numbers)}"
            own.mkdir()
            stage = Stage(cluster, Site(kube, own.name), own)
            try:
                await stage.site.make()
                outcomes[name].set_result(await play(stage))
            except Exception as error:  # noqa: BLE001 - told of this play; the others go on
                error.add_note(f"see {own}")
                outcomes[name].set_exception(error)

    # Plays' own requests have no shorter timeout: a server that is busy with all plays answers eventually.
    async with Kube.connect(Settings(kubeconfig=cluster.kubeconfig, kube_timeout_seconds=PATIENCE)) as kube:
        await make_connection(kube)
        beside, calm, alone = waves
        for wave in (beside, calm):
            await asyncio.gather(*(one(name, play) for name, play in wave.items()))
        for name, play in alone.items():
            await one(name, play)
