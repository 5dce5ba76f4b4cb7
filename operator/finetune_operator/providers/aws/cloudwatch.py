"""The time of the last request to a model at AWS, by CloudWatch's `Invocations`. One call, no state, no retries."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from finetune_api.reasons import Reason
from finetune_operator.decide.deployment.idle import LAG, Figures, span
from finetune_operator.providers.aws.client import Aws
from finetune_operator.providers.calls.errors import ProviderError, TryLater, metrics_unreadable

SERVICE, METRIC = "cloudwatch", "Invocations"

KEPT = timedelta(days=59)
"""GetMetricStatistics returns at most 1,440 points: that many hours, less a margin."""


async def usage(aws: Aws, namespace: str, dimensions: Mapping[str, str], since: datetime, now: datetime) -> Figures:
    """The last request by the metric with these dimensions.

    Raises:
        ProviderError: the metrics cannot be read.
    """
    try:
        answer = await aws.call(SERVICE, "get_metric_statistics", **question(namespace, dimensions, since, now))
    except ProviderError as error:
        raise metrics_unreadable(error, "CloudWatch", "cloudwatch:GetMetricStatistics") from None
    if "Datapoints" not in answer:
        raise TryLater(Reason.USAGE_UNKNOWN, f"CloudWatch tells nothing of {METRIC}")
    return figures(answer["Datapoints"], span(since, now), now)


def question(namespace: str, dimensions: Mapping[str, str], since: datetime, now: datetime) -> dict[str, Any]:
    """The arguments of GetMetricStatistics. Pure."""
    return {
        "Namespace": namespace,
        "MetricName": METRIC,
        "Dimensions": [{"Name": name, "Value": value} for name, value in dimensions.items()],
        "StartTime": max(since, now - KEPT),
        "EndTime": now,
        "Period": int(span(since, now).total_seconds()),
        "Statistics": ["Sum"],
    }


def figures(points: Iterable[Mapping[str, Any]], step: timedelta, now: datetime) -> Figures:
    """The end of the last interval that has a request. Pure."""
    asked: list[datetime] = [point["Timestamp"].astimezone(UTC) for point in points if point.get("Sum")]
    return Figures(min(max(asked) + step, now) if asked else None, now - LAG)
