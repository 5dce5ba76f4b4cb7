"""Usage figures are asked for, and read, by the provider's clock; what comes of them is by the API server's."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from finetune_operator.decide.deployment.hosted_record import Hosted
from finetune_operator.decide.deployment.idle import Figures
from finetune_operator.providers.remote.hosting import Hosting

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


class Provider:
    """An account whose one deployment was asked ten minutes ago, as its own clock says."""

    def __init__(self, now: datetime) -> None:
        self.now = now
        self.asked: tuple[datetime, datetime] | None = None

    def of(self, _: str) -> "Provider":
        return self

    async def host(self, do: Any) -> Any:
        return await do(self)

    async def usage(self, _: Hosted, since: datetime, now: datetime) -> Figures:
        self.asked = since, now
        last = self.now - timedelta(minutes=10)
        return Figures(last if since <= last <= now else None, now)


@pytest.mark.parametrize("hours", [0, 5, -5])
async def test_a_request_is_seen_when_it_was_made_however_wrong_the_api_servers_clock_is(hours: int) -> None:
    ahead = timedelta(hours=hours)
    provider = Provider(NOON - ahead)
    hosting = Hosting(provider, lambda: ahead)  # type: ignore[arg-type]
    figures = await hosting.usage(Hosted("v1", "Ready", "azure"), NOON - timedelta(hours=1), NOON)
    assert figures == Figures(NOON - timedelta(minutes=10), NOON)
