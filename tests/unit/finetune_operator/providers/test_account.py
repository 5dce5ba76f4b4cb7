"""What goes to a provider beside the reconcilers, files and questions of pods: nothing once another may lead."""

from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest

from finetune_api.asking import ChatRequest
from finetune_operator.providers.accounts.account import Account
from finetune_operator.providers.accounts.client import Sources
from finetune_operator.runtime.errors import LeadershipLost


class LosesTheLead:
    """An account's client, made while the lead is lost, as it may be when its Secret is read for it."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.leads = True

    @property
    def sources(self) -> Sources:
        return Sources(cast("Any", None), cast("Any", None), cast("Any", None), self.guard, clock=lambda: 0.0)

    async def api(self) -> Any:
        self.leads = False
        return self

    def guard(self) -> None:
        if not self.leads:
            raise LeadershipLost("another replica leads")

    def answering(self) -> "LosesTheLead":
        return self

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        async def ask(*_: Any) -> Any:
            self.asked.append(name)
            return []

        return ask


@pytest.mark.parametrize(
    "send",
    [
        lambda account: account.upload("finetune-a.jsonl", 1, cast("Any", None)),
        lambda account: account.answer("m", ChatRequest.model_validate(QUESTION)),
        lambda account: account.call(lambda api: api.files("a")),
    ],
    ids=["a file", "a question", "a call"],
)
async def test_nothing_is_sent_once_another_replica_may_lead(send: Callable[[Account], Awaitable[Any]]) -> None:
    provider = LosesTheLead()
    account = Account(cast("Any", provider), lambda _: None, on_refused=lambda: None, poll_seconds=None)
    with pytest.raises(LeadershipLost):
        await send(account)
    assert provider.asked == []


QUESTION = {"model": "tuned", "messages": [{"role": "user", "content": "?"}], "max_tokens": 1}
