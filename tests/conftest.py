"""Distributes tests over pytest's workers: those with our pods on one, those with only an API server on the next,
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
"""The folder whose tests wait for nodes to be lost and to return: before the rest, which computes meanwhile."""

FORKING = "import ranks\n"
"""Marks files whose tests fork trainers: one fork server imports torch for all of them, which takes many seconds."""

YOUNG_OBJECTS = 20_000
"""The garbage collector's threshold of new objects."""
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
    """Wrap `compile`: one call at a time, with the garbage collector off.

    Garbage collection may destroy a task with an unretrieved exception. Logging that makes Python 3.11 build an AST
    within another one, which then fails ("AST constructor recursion depth mismatch"). pytest builds ASTs to show
    failures, and the error ended the whole run.
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
    """pytest's log handler, installed on the root logger only.

    Since 9.2 pytest also installs it on every non-propagating logger, and searches more than a thousand for these, six
    times a test: nearly all are torch's, and no test checks them.
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
    """Folders with the same value in `TOGETHER` form one work unit, as does any other file."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return TOGETHER.get(PurePosixPath(file).parts[1]) or ("trainers" if _forks(HERE.parent / file) else file)


def pytest_addoption(parser: pytest.Parser) -> None:
    """For `make test`, `make test-all`, `make test-chaos` and `make status-table`."""
    parser.addoption("--sample", action="store_true", help="of tests whose rows are alike, run some rows only")
    parser.addoption("--write-status-table", action="store_true", help="write docs/reference/status.md again")
    parser.addoption("--every-fault", action="store_true", help="kill the operator at every fault point (half an hour)")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByCluster:
    """Used with --numprocesses."""
    return ByCluster(config, log)


@pytest.hookimpl(trylast=True)  # of the rows that -k and -m have chosen
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put the long work units first, and drop rows that are not in the sample."""
    items.sort(key=lambda item: _rank(item.path))
    if config.getoption("sample"):
        left = set(beyond_a_sample(item.nodeid for item in items if item.get_closest_marker("alike")))
        config.hook.pytest_deselected(items=[item for item in items if item.nodeid in left])
        items[:] = [item for item in items if item.nodeid not in left]


def pytest_collection_finish() -> None:
    """Freeze all objects after collection: scanning them again and again took an eighth of the tests' time.

    Without a collection before, as this took each worker more than a second and found little.
    """
    gc.freeze()


@pytest.hookimpl(tryfirst=True)  # before what pytest does that nobody hears of any more
def pytest_unconfigure(config: pytest.Config) -> None:
    """End a worker as soon as it has reported everything.

    Otherwise the run would wait seconds for each worker's final garbage collections and deallocation, whose findings
    could no longer be reported.
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
