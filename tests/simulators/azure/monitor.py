"""Azure Monitor's metrics of the account: requests by deployment, in intervals, with a lag of some minutes."""

import re
from datetime import UTC, datetime
from typing import Any

from tests.simulators.azure import errors
from tests.simulators.azure.arm import ACCOUNT, Arm
from tests.simulators.azure.deployments import Deployments
from tests.simulators.azure.settings import AzureSettings
from tests.simulators.clock import DAY
from tests.simulators.http import ApiError, Call, Reply, Route

METRIC = "AzureOpenAIRequests"
SPANS = {"PT1M": 60, "PT5M": 300, "PT15M": 900, "PT30M": 1800, "PT1H": 3600, "PT6H": 21600, "P1D": 86400}
KEPT = 93 * DAY
LATE = 180.0


class Monitor:
    """The metrics of the account's requests."""

    def __init__(self, settings: AzureSettings, deployments: Deployments, arm: Arm) -> None:
        self._settings, self._deployments, self._arm = settings, deployments, arm

    def routes(self) -> list[Route]:
        """The one path."""
        return [Route("GET", ACCOUNT + "/providers/Microsoft.Insights/metrics", "metrics.list", self.figures)]

    def figures(self, call: Call) -> Reply:
        """The requests to one deployment, a point per interval. A deployment without requests has no series at all."""
        self._arm.locate(call)
        if not self._settings.may_read_metrics:
            raise errors.no_rights("Microsoft.Insights/metrics/read", self._deployments.account_id)
        name = self._dimension(call.query.get("$filter", ""))
        if call.query.get("metricnames") != METRIC or call.query.get("aggregation") != "Total":
            raise ApiError(400, "BadRequest", "Detected invalid metric or aggregation.")
        if call.query.get("interval") not in SPANS:
            raise ApiError(400, "BadRequest", "Detected invalid time grain input.")
        begin, end = (_moment(text) for text in call.query["timespan"].split("/"))
        if self._deployments.clock.now - begin > KEPT:
            raise ApiError(400, "BadRequest", "The start time is too far in the past.")
        series = self._series(name, begin, end, SPANS[call.query["interval"]])
        metric = {
            "id": f"{self._deployments.account_id}/providers/Microsoft.Insights/metrics/{METRIC}",
            "type": "Microsoft.Insights/metrics", "name": {"value": METRIC, "localizedValue": "Azure OpenAI Requests"},
            "unit": "Count", "timeseries": series, "errorCode": "Success",
        }  # fmt: skip
        asked = {name: call.query[name] for name in ("timespan", "interval")}
        namespace, region = "microsoft.cognitiveservices/accounts", self._settings.location
        return Reply.json(asked | {"cost": 1, "value": [metric], "namespace": namespace, "resourceregion": region})

    def _series(self, name: str, begin: float, end: float, span: int) -> list[dict[str, Any]]:
        shown = self._deployments.clock.now - LATE
        asked = [at for at in self._deployments.asked.get(name, ()) if begin <= at < end and at <= shown]
        if not asked:
            return []
        first = int(begin // span)
        counts = [sum(int(at // span) == number for at in asked) for number in range(first, int(end // span) + 1)]
        data = [
            {"timeStamp": _text((first + offset) * span), "total": float(count)} for offset, count in enumerate(counts)
        ]
        dimension = {"name": {"value": "modeldeploymentname", "localizedValue": "modeldeploymentname"}, "value": name}
        return [{"metadatavalues": [dimension], "data": data}]

    @staticmethod
    def _dimension(text: str) -> str:
        found = re.fullmatch(r"ModelDeploymentName eq '((?:[^']|'')*)'", text)
        if found is None:
            raise ApiError(400, "BadRequest", "The filter is invalid.")
        return found[1].replace("''", "'")


def _moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _text(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat().replace("+00:00", "Z")
