"""Accounts behind connections: what their Secrets lack is said, whatever somebody has written."""

from typing import Any, cast

import pytest

from finetune_api.connection import LLMConnectionSpec
from finetune_api.reasons import Reason
from finetune_operator.providers.accounts import Accounts
from finetune_operator.providers.errors import TryLater
from finetune_operator.runtime.kube import Kube


async def test_a_name_that_no_secret_can_have_is_one_that_is_not_there() -> None:
    """The port to the API server refuses to ask for it at all, so it needs no server here."""
    spec = LLMConnectionSpec.model_validate({"openAI": {"apiKeySecretRef": {"name": ":", "key": "a"}}})
    accounts = Accounts(
        Kube(cast("Any", None)), connection=lambda _: spec, namespace="finetune", wake=lambda _: None, background=False
    )
    with pytest.raises(TryLater) as refused:
        await accounts.of("any").call(lambda api: api.check())
    assert refused.value.reason == Reason.SECRET_NOT_FOUND
