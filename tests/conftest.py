"""How tests are spread over pytest's workers: those with our pods on one, those with an API server alone on the next,
those that fork trainers on a third, all first and in order; the rest by file, over all workers."""

import atexit
import builtins
import gc
import logging
import os
from collections.abc import Callable
from functools import cache, wraps
from pathlib import Path, PurePosixPath
from threading import RLock
from typing import Any

import pytest
from _pytest import logging as log_capture
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadScopeScheduling

from tests.sampling import beyond_a_sample

HERE = Path(__file__).parent
TOGETHER = {"e2e": "pods", "contract": "control planes", "chaos": "control planes"}
"""Folders whose tests start clusters, the longest first."""

WAITING = "cluster"
"""The folder whose tests wait for nodes that are lost and come back: before the rest, which computes meanwhile."""

FORKING = "import ranks\n"
"""In files whose tests fork trainers: one server has imported torch for all of them, which takes it many seconds."""

YOUNG_OBJECTS = 20_000
"""That many new ones between two looks of the garbage collector."""
gc.set_threshold(YOUNG_OBJECTS)

# As the trainer's commands set it. Torch reads it once, when whatever test is collected first imports it: threads that
# spin while they wait took ten times the processor time of the training itself, from the other worker.
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"

# Of what is written in Go, kubectl, helm and clusters above all: a fifth of their processor time went into collecting
# garbage of heaps that are small.
os.environ.setdefault("GOGC", "400")

# Properties hold however slow the machine is; what a profile says besides, of CI for one, stays.
settings.register_profile("patient", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


def undisturbed(make: Callable[..., Any]) -> Callable[..., Any]:
    """Of `compile`: one at a time, and without the garbage collector.

    What that ends may be a task whose exception nobody has asked for: it is written out, for which Python 3.11 makes a
    tree in the middle of another and loses that one ("AST constructor recursion depth mismatch"). pytest makes one to
    show a failure, and without it ended the whole run.
    """
    turn = RLock()

    @wraps(make)
    def compiled(*args: Any, **options: Any) -> Any:
        with turn:
            collects = gc.isenabled()
            gc.disable()
            try:
                return make(*args, **options)
            finally:
                if collects:
                    gc.enable()

    return compiled


builtins.compile = undisturbed(builtins.compile)


class CaughtAtTheRoot(log_capture.catching_logs[Any]):
    """pytest's own catcher of logs, of what comes up to the root logger alone.

    Since 9.2 it goes to every logger that passes nothing up as well, and looks through more than a thousand for them,
    six times a test: nearly all of those are torch's, and no test looks at what they say.
    """

    __slots__ = ()

    def __enter__(self) -> Any:
        root = logging.getLogger()
        if self.level is not None:
            self.handler.setLevel(self.level)
            self.orig_level = root.level
            root.setLevel(min(self.orig_level, self.level))
        root.addHandler(self.handler)
        return self.handler

    def __exit__(self, *_: object) -> None:
        root = logging.getLogger()
        if self.level is not None:
            root.setLevel(self.orig_level)
        root.removeHandler(self.handler)


log_capture.catching_logs = CaughtAtTheRoot  # type: ignore[misc]


class ByCluster(LoadScopeScheduling):
    """The folders of `TOGETHER` with the same word are one piece of work, any other file is one too."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return TOGETHER.get(PurePosixPath(file).parts[1]) or ("trainers" if _forks(HERE.parent / file) else file)


def pytest_addoption(parser: pytest.Parser) -> None:
    """For `make test`, `make test-all`, `make test-chaos` and `make status-table`."""
    parser.addoption("--sample", action="store_true", help="of tests whose rows are alike, run some rows only")
    parser.addoption("--write-status-table", action="store_true", help="write docs/reference/status.md again")
    parser.addoption("--every-fault", action="store_true", help="kill the operator at every fault point (hours)")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByCluster:
    """Used with --numprocesses."""
    return ByCluster(config, log)


@pytest.hookimpl(trylast=True)  # of the rows that -k and -m have chosen
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put the long pieces first, and leave out what a sample has no need of."""
    items.sort(key=lambda item: _rank(item.path))
    if config.getoption("sample"):
        left = set(beyond_a_sample(item.nodeid for item in items if item.get_closest_marker("alike")))
        config.hook.pytest_deselected(items=[item for item in items if item.nodeid in left])
        items[:] = [item for item in items if item.nodeid not in left]


def pytest_collection_finish() -> None:
    """What has been collected and imported stays: an eighth of the tests' time went into looking whether it does.

    The little that is garbage stays with it: to look for that took each worker more than a second.
    """
    gc.freeze()


@pytest.hookimpl(tryfirst=True)  # before what pytest does that nobody hears of any more
def pytest_unconfigure(config: pytest.Config) -> None:
    """A worker ends as soon as it has told all.

    The run waits for it while it looks through its garbage twice and gives back what it holds piece by piece: seconds
    of each worker, when nothing else is left to do. What that would find has no way to whoever reads the results.
    """
    if hasattr(config, "workerinput"):
        atexit._run_exitfuncs()  # processes and folders that are to go with this one
        os._exit(0)


@cache
def _rank(path: Path) -> int:
    folder = path.relative_to(HERE).parts[0]
    if folder in TOGETHER:
        return list(TOGETHER).index(folder)
    return len(TOGETHER) + (0 if _forks(path) else 1 if folder == WAITING else 2)


@cache
def _forks(path: Path) -> bool:
    return FORKING in path.read_text(encoding="utf-8")
