"""One loaded model and one server, shared by all server tests that do not need their own."""

import sys
from pathlib import Path

import openai
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from running_server import SERVED, running_server
from served_models import load_reference, make_adapter

from finetune_trainer.serving.app import ModelHolder
from finetune_trainer.serving.artifact import open_artifact


@pytest.fixture(scope="session")
def adapter(tiny_model, tmp_path_factory):
    return make_adapter(tiny_model, tmp_path_factory.mktemp("tuned") / "model")


@pytest.fixture(scope="session")
def reference(tiny_model, adapter):
    """The unmerged adapter model and its tokenizer, straight from peft and transformers."""
    return load_reference(tiny_model, adapter)


@pytest.fixture(scope="session")
def served(tiny_model, adapter):
    from finetune_trainer.serving.load import LoadOptions, load

    loaded = load(open_artifact(adapter, tiny_model), LoadOptions(name=SERVED))
    yield loaded
    loaded.engine.close(timeout=10)


@pytest.fixture(scope="session")
def address(served):
    with running_server(ModelHolder(served)) as address:
        yield address


@pytest.fixture(scope="session")
def client(address):
    with openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0, timeout=30) as client:
        yield client
