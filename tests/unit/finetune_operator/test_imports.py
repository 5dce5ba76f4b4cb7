"""What the operator keeps in memory for nothing: a fresh interpreter tells."""

import subprocess
import sys
from functools import cache

SDKS = ("openai", "boto3", "botocore", "azure", "httpx2", "msal")

LOCAL = """
import sys
from finetune_operator.__main__ import parser
from finetune_operator.providers import connection_secret, sdks
from finetune_api.connection import LLMConnectionSpec
import asyncio
parser()
spec = LLMConnectionSpec.model_validate({"huggingFace": {"trainerImage": "t", "artifacts": {"uri": "pvc://models"}}})
assert connection_secret.secret_of(spec) is None and not sdks.is_remote(spec)
asyncio.run(sdks.imported(spec.provider))
"""


@cache
def modules_after(code: str) -> set[str]:
    """The top-level packages that a fresh interpreter has imported by the end of the code."""
    told = "\nprint(*{name.partition('.')[0] for name in sys.modules})"
    command = [sys.executable, "-c", code + told]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


def test_who_trains_on_the_cluster_alone_loads_no_sdk_of_a_provider() -> None:
    loaded = modules_after(LOCAL)
    assert "kopf" in loaded
    assert not loaded & set(SDKS)


def test_a_pod_needs_nothing_of_the_official_client() -> None:
    loaded = modules_after(LOCAL)
    assert "kubernetes" not in loaded
    again = "\nimport finetune_operator.runtime.kubeconfig"
    assert "kubernetes" in modules_after(LOCAL + again), "a kubeconfig may need its plug-ins"


def test_a_provider_brings_its_own_sdk_and_no_other() -> None:
    loaded = modules_after(LOCAL + 'asyncio.run(sdks.imported("openAI"))\n')
    assert loaded & set(SDKS) == {"openai", "httpx2"}
