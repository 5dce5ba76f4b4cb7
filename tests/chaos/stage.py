"""Plays beside each other: most of their time they wait for Kubernetes' own controllers, or for a Lease to end.

A module of tests names its plays in `PLAYS`; those of the tests that were selected are all performed at once, before
the first of them, and `outcome` hands a test what became of its own.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from finetune_operator.runtime.kube import Kube
from finetune_operator.runtime.settings import Settings
from tests.chaos.site import Site, make_connection
from tests.cluster.cluster import Cluster

AT_ONCE = 14


@dataclass(frozen=True)
class Stage:
    """Where a play is performed: the control plane, a namespace of its own, and a folder for files and logs."""

    cluster: Cluster
    site: Site
    folder: Path

    @property
    def kube(self) -> Kube:
        """The administrator's port."""
        return self.site.kube


Play = Callable[[Stage], Awaitable[Any]]
Name = tuple[str, Hashable]
"""Module and key of a play."""


@dataclass(frozen=True)
class Plays:
    """The plays of a module, by key."""

    beside: Mapping[Hashable, Play]
    alone: Mapping[Hashable, Play]
    """Those that take away what the others stand on: one after the other, when these are over."""
    always: tuple[Hashable, ...] = ()
    """Keys of plays that every test of the module is compared with."""


Outcomes = dict[Name, Any]


def selected(items: Iterable[pytest.Item]) -> dict[Name, tuple[Play, bool]]:
    """The plays of these tests, each with whether it is to be performed alone."""
    found: dict[Name, tuple[Play, bool]] = {}
    for item in items:
        plays = getattr(getattr(item, "module", None), "PLAYS", None)
        if not isinstance(plays, Plays) or "outcome" not in getattr(item, "fixturenames", ()):
            continue
        asked = item.callspec.params.values() if hasattr(item, "callspec") else ()
        for key in (*plays.always, *asked):
            for some, alone in ((plays.beside, False), (plays.alone, True)):
                if isinstance(key, Hashable) and key in some:
                    found[item.module.__name__, key] = (some[key], alone)
    return found


async def perform(cluster: Cluster, plays: Mapping[Name, tuple[Play, bool]], folder: Path) -> Outcomes:
    """What each play returned, or the exception in which it ended."""
    places = asyncio.Semaphore(AT_ONCE)
    outcomes: Outcomes = {}

    async def one(number: int, name: Name, play: Play) -> None:
        async with places:
            own = folder / f"{name[0].rpartition('_')[2]}-{number}"
            own.mkdir()
            stage = Stage(cluster, Site(kube, own.name), own)
            try:
                await stage.site.make()
                outcomes[name] = await play(stage)
            except (Exception, AssertionError) as error:  # noqa: BLE001 - told of this play; the others go on
                error.add_note(f"see {own}")
                outcomes[name] = error

    async with Kube.connect(Settings(kubeconfig=cluster.kubeconfig)) as kube:
        await make_connection(kube)
        numbered = list(enumerate(plays.items()))
        await asyncio.gather(*(one(number, name, play) for number, (name, (play, alone)) in numbered if not alone))
        for number, (name, (play, alone)) in numbered:
            if alone:
                await one(number, name, play)
    return outcomes
