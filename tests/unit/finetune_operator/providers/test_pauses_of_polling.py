"""When a provider is asked again that could not be asked: as it wishes, and soon where people mend a key."""

import asyncio
from typing import Any

import pytest

from finetune_api.reasons import Reason
from finetune_operator.providers.accounts.polling import Poller
from finetune_operator.providers.calls.errors import Denied, ProviderError, TryLater, Unknown
from tests.unit.finetune_operator.decide.given import NOW
from tests.unit.finetune_operator.providers.test_gate_and_poll import Provider, key


async def pauses(monkeypatch: pytest.MonkeyPatch, error: ProviderError, rounds: int, seconds: float) -> list[float]:
    """How long a poller rests after each of so many rounds that come to nothing."""
    provider, slept, sleep = Provider(1), list[float](), asyncio.sleep
    provider.error = error

    async def pause(length: float) -> None:
        slept.append(length)
        if len(slept) >= 2 * rounds:
            polling.forget(key("j0"))
        await sleep(0)

    async def api() -> Any:
        return provider

    polling = Poller(api, lambda _: None, seconds=seconds)
    monkeypatch.setattr("finetune_operator.providers.accounts.polling.asyncio.sleep", pause)
    polling.watch("j0", key("j0"), NOW)
    while len(slept) < 2 * rounds:
        await sleep(0)
    await polling.close()
    assert provider.asked == ["jobs"] * rounds
    return slept[1::2]


@pytest.mark.parametrize("jitter", [0.8, 1.0, 1.2])
async def test_the_next_round_is_never_before_the_provider_wants_it(
    monkeypatch: pytest.MonkeyPatch, jitter: float
) -> None:
    monkeypatch.setattr(
        "finetune_operator.providers.accounts.polling.random.uniform", lambda low, high: min(max(jitter, low), high)
    )
    rested = await pauses(monkeypatch, TryLater(Reason.RATE_LIMITED, "slow", 900.0), 1, 0.01)
    assert 900.0 <= rested[0] <= 1080.0


@pytest.mark.parametrize(
    ("error", "longest"),
    [
        (TryLater(Reason.CREDENTIALS_INVALID, "the key is bad"), 60.0),
        (TryLater(Reason.SECRET_NOT_FOUND, "there is none"), 60.0),
        (Denied(Reason.CREDENTIALS_INVALID, "the key may not do this"), 300.0),
        (Unknown(Reason.PROVIDER_UNAVAILABLE, "silence"), 300.0),
    ],
)
async def test_a_round_comes_within_a_minute_where_somebody_mends_a_key(
    monkeypatch: pytest.MonkeyPatch, error: ProviderError, longest: float
) -> None:
    monkeypatch.setattr("finetune_operator.providers.accounts.polling.random.uniform", lambda *_: 1.0)
    rested = await pauses(monkeypatch, error, 8, 20.0)
    assert (rested[0], max(rested)) == (40.0, longest)
