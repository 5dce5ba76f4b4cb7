"""A training job at SageMaker that is done, and whose report cannot be read: no version without it, and a word why."""

from typing import Any

import pytest

from finetune_api.reasons import Reason
from finetune_operator.providers.aws.s3 import Bucket
from finetune_operator.providers.calls.errors import Denied, ProviderError, Unreadable
from tests.simulators.conftest import s3_endpoint, start
from tests.unit.finetune_operator.reconcilers.fake_cluster import MODEL
from tests.unit.finetune_operator.reconcilers.sagemaker import CREATE, begin, provider

__all__ = ["begin", "provider", "s3_endpoint", "start"]

WHY: dict[str, ProviderError] = {
    "no right": Denied(Reason.CREDENTIALS_INVALID, "s3 does not let the operator's identity GetObject", 60.0),
    "a page": Unreadable("s3 answers with a web page"),
}


@pytest.mark.alike
@pytest.mark.parametrize("seen", [True, False], ids=["seen at work", "never seen"])
@pytest.mark.parametrize("why", WHY)
async def test_a_report_that_cannot_be_read_is_waited_for(
    begin: Any, provider: Any, monkeypatch: Any, why: str, seen: bool
):
    cluster = await begin()
    if seen:
        await cluster.pass_time(61)

    async def unread(*_: Any) -> bytes:
        raise WHY[why]

    with monkeypatch.context() as patched:
        patched.setattr(Bucket, "read", unread)
        for _ in range(20):
            await cluster.pass_time(600)
        status = cluster.status()
        assert status["phase"] not in {"Succeeded", "Failed"}, status
        assert (status["failure"]["reason"], WHY[why].message) == (WHY[why].reason, status["failure"]["message"])
        assert cluster.condition("Stalled")["status"] == ("True" if why == "no right" else "False")
    for _ in range(3):
        await cluster.pass_time(600)
    assert (cluster.status()["phase"], provider.count(CREATE)) == ("Succeeded", 1)
    assert cluster.status(MODEL)["versions"][0]["artifact"]["kind"] == "Adapter"
