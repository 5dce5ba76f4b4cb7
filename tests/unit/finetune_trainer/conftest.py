"""Fixtures of the trainer's tests: a tiny model that is created once, and no access to a hub."""

import gc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import settings

from finetune_api.names import ARTIFACTS_PREFIX
from finetune_trainer.attempt.metrics import Metrics
from finetune_trainer.computing import four_bit, garbage
from finetune_trainer.output import loss_plot
from tests.assets.tiny_model import make_tiny_model
from tests.unit.finetune_trainer.checked import check
from tests.unit.finetune_trainer.still_clock import clock
from tests.unit.finetune_trainer.storage.azure_store import AzureBucket
from tests.unit.finetune_trainer.storage.google_store import GoogleBucket
from tests.unit.finetune_trainer.storage.object_server import MemoryBucket, served
from tests.unit.finetune_trainer.storage.s3_store import Bucket, serving

_MANY_OBJECTS = 10_000
"""This many surviving objects of a test are mostly modules: `train` imports what its model and method need."""

__all__ = ["check", "clock"]

AnyBucket = TypeVar("AnyBucket", Bucket, GoogleBucket, AzureBucket)

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"
settings.register_profile("fuzz", max_examples=10_000)  # pytest --hypothesis-profile=fuzz


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A model cache with `test/tiny-llama`."""
    cache = tmp_path_factory.mktemp("model-cache")
    make_tiny_model(cache)
    import peft  # noqa: F401 - the last of the large libraries that training imports

    gc.collect()
    gc.freeze()  # training collects garbage three times a run, half a second each for all imported objects
    yield cache
    gc.unfreeze()


@pytest.fixture(autouse=True)
def _jobs_of_all_methods_share_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Disable optimizations that assume one job per process, as in a pod: tests run jobs of all methods in one."""
    monkeypatch.setattr(four_bit, "block_import", lambda _base: None)
    monkeypatch.setattr(garbage, "import_and_freeze", lambda *_modules: None)


@pytest.fixture(autouse=True)
def _what_tests_import_is_collected_once() -> Iterator[None]:
    """Freeze imported objects after each test, as `tiny_model` does at first: saves a tenth of training tests' time."""
    before = gc.get_stats()[2]["collections"]
    yield
    if gc.get_stats()[2]["collections"] > before and len(gc.get_objects()) > _MANY_OBJECTS:
        gc.collect()
        gc.freeze()


@pytest.fixture(scope="session")
def _drawn() -> dict[tuple[str, str], str]:
    return {}


@pytest.fixture(autouse=True)
def _loss_is_drawn_once(monkeypatch: pytest.MonkeyPatch, _drawn: dict[tuple[str, str], str]) -> None:
    """Cache drawn loss plots, by title and unit: saves an eighth of a short run's processor time.

    `attempt/test_metrics.py` tests the plots themselves.
    """
    draw = loss_plot.draw

    def drawn(record: Metrics, *, title: str) -> str:
        said = title, loss_plot.unit(record)
        if said not in _drawn:
            _drawn[said] = draw(record, title=title)
        return _drawn[said]

    monkeypatch.setattr(loss_plot, "draw", drawn)


@pytest.fixture(scope="session")
def _bucket() -> Iterator[Bucket]:
    with serving() as bucket:
        yield bucket


@pytest.fixture(scope="session")
def _google() -> Iterator[GoogleBucket]:
    bucket = GoogleBucket()
    with served(bucket):
        yield bucket


@pytest.fixture(scope="session")
def _azure() -> Iterator[AzureBucket]:
    bucket = AzureBucket()
    with served(bucket):
        yield bucket


def _fresh(bucket: AnyBucket, monkeypatch: pytest.MonkeyPatch) -> AnyBucket:
    for name, value in bucket.keys.items():
        monkeypatch.setenv(f"{ARTIFACTS_PREFIX}{name}", value)
    bucket.fault = lambda _method, _path: None
    bucket.asked.clear()
    return bucket


@pytest.fixture
def bucket(_bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """A bucket of a real S3 over HTTP, initially without faults; the environment has its keys."""
    return _fresh(_bucket, monkeypatch)


@pytest.fixture
def google(_google: GoogleBucket, monkeypatch: pytest.MonkeyPatch) -> GoogleBucket:
    """An empty bucket of Google Cloud Storage over HTTP."""
    _google.objects.clear()
    return _fresh(_google, monkeypatch)


@pytest.fixture
def azure(_azure: AzureBucket, monkeypatch: pytest.MonkeyPatch) -> AzureBucket:
    """An empty container of Azure Blob Storage over HTTP."""
    _azure.objects.clear()
    return _fresh(_azure, monkeypatch)


@pytest.fixture(params=["bucket", "google", "azure"])
def any_bucket(request: pytest.FixtureRequest) -> Bucket | MemoryBucket:
    """Each kind of store in turn."""
    bucket: Bucket | MemoryBucket = request.getfixturevalue(request.param)
    return bucket
