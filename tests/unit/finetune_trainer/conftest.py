"""Fixtures of the trainer's tests: a tiny model that is made once, and no way to a hub."""

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from finetune_api.names import ARTIFACTS_PREFIX
from tests.assets.tiny_model import make_tiny_model
from tests.unit.finetune_trainer.stores import KEYS, Bucket, serving

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # as the commands set it; without it tests crawl on a machine that is in use
settings.register_profile("fuzz", max_examples=10_000)  # pytest --hypothesis-profile=fuzz


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A model cache that holds `test/tiny-llama`."""
    cache = tmp_path_factory.mktemp("model-cache")
    make_tiny_model(cache)
    import peft  # noqa: F401 - the last of the large libraries that training imports

    gc.collect()
    gc.freeze()  # training collects garbage three times a run: half a second each over all that was imported
    yield cache
    gc.unfreeze()


@pytest.fixture(scope="session")
def _bucket() -> Iterator[Bucket]:
    with serving() as bucket:
        yield bucket


@pytest.fixture
def bucket(_bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """A bucket of a real S3 over HTTP, without faults at first; the environment has its keys."""
    for name, value in KEYS.items():
        monkeypatch.setenv(f"{ARTIFACTS_PREFIX}{name}", value)
    _bucket.fault = lambda _method, _path: None
    _bucket.asked.clear()
    return _bucket
