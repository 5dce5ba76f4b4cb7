"""The time of a deployment's last request, by Azure Monitor's metrics of its account. One call, no state, no retries.

The metrics are read through ARM's REST API: one GET does not justify another SDK.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from finetune_api.reasons import Reason
from finetune_operator.decide.conditions import timestamp
from finetune_operator.decide.deployment.idle import FINE, LAG, Figures, span
from finetune_operator.providers.azure.arm import ArmRest
from finetune_operator.providers.calls.errors import ProviderError, Refused, metrics_unreadable
from finetune_operator.providers.calls.values import parse_time

API_VERSION = "2023-10-01"
METRIC = "AzureOpenAIRequests"
DIMENSION = "ModelDeploymentName"

TOLERANCE = timedelta(minutes=1)
"""Difference between Azure's clock and ours that is ignored: less than an interval of the metrics."""

KEPT = timedelta(days=90)
"""Azure's retention: 93 days, less a margin."""


class AzureMonitor:
    """The metrics of one account.

    Args:
        arm: calls to ARM.
        account: the account's resource identifier.
    """

    def __init__(self, arm: ArmRest, account: str) -> None:
        self._arm = arm
        self._account = account

    async def usage(self, deployment: str, since: datetime, now: datetime) -> Figures:
        """The last request to a deployment. Azure's clock may differ: tokens, unlike signatures, do not reveal that.

        Raises:
            ProviderError: the metrics cannot be read.
        """
        answer, date = await self._asked(deployment, since, now)
        ahead = date - now if date is not None and abs(date - now) > TOLERANCE else timedelta()
        if ahead:
            answer, _ = await self._asked(deployment, since + ahead, now + ahead)
        found = figures(answer, span(since, now), now + ahead)
        return Figures(found.last and found.last - ahead, found.until - ahead)

    async def _asked(self, deployment: str, since: datetime, now: datetime) -> tuple[dict[str, Any], datetime | None]:
        path = f"{self._account}/providers/Microsoft.Insights/metrics"
        try:
            return await self._arm.get_dated(path, question(deployment, since, now))
        except ProviderError as error:
            raise metrics_unreadable(error, "Azure Monitor", "the role Monitoring Reader") from None


def question(deployment: str, since: datetime, now: datetime) -> dict[str, str]:
    """The query parameters for one deployment's requests. Pure."""
    begin, quoted = max(since, now - KEPT), deployment.replace("'", "''")
    return {
        "api-version": API_VERSION,
        "metricnames": METRIC,
        "aggregation": "Total",
        "interval": "PT5M" if span(since, now) == FINE else "PT1H",
        "timespan": f"{timestamp(begin)}/{timestamp(now)}",
        "$filter": f"{DIMENSION} eq '{quoted}'",
    }


def figures(answer: Mapping[str, Any], step: timedelta, now: datetime) -> Figures:
    """The end of the last interval that has a request. Pure.

    Raises:
        Refused: the answer has no such metric.
    """
    metric = next((one for one in answer.get("value") or () if _is(one.get("name", {}).get("value"), METRIC)), None)
    if metric is None or not _is(metric.get("errorCode"), "Success", unsaid=True):
        raise Refused(Reason.USAGE_UNKNOWN, f"Azure Monitor tells nothing of {METRIC}")
    points = [point for series in metric.get("timeseries") or () for point in series.get("data") or ()]
    asked = [moment for point in points if point.get("total") and (moment := parse_time(point["timeStamp"]))]
    return Figures(min(max(asked) + step, now) if asked else None, now - LAG)


def _is(said: str | None, word: str, *, unsaid: bool = False) -> bool:
    """Compare case-insensitively; the result for a missing value is `unsaid`."""
    return said.casefold() == word.casefold() if said else unsaid
