"""Reports: the complete Report by HTTPS to the operator, and the termination message at the end.

A lost report does not matter, so a background thread sends only the newest one, for a bounded time, and errors never
reach the training. If there is nothing new for long but the process moves data, the last report is sent again: loading
a model may take hours, while a process that hangs moves nothing.
"""

import contextlib
import http.client
import logging
import os
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit, urlunsplit

import orjson

from finetune_api.names import REPORT_CA_VARIABLE, REPORT_MAX_BYTES, TERMINATION_MESSAGE_PATH, TOKEN_PATH
from finetune_api.trainer import DONE, AttemptJob, Report, termination_message, thin
from finetune_trainer.attempt.pod_log import PodLog

INTERVAL_SECONDS = 2.0
"""Minimum time between two reports of the same phase."""

FINAL_SECONDS = 15.0
"""How long to retry the last report; an operator that misses it has the termination message."""

CHECK_SECONDS = 60.0
"""How often to check whether a run that reports nothing is alive."""

LEAST_BYTES = 2**20
"""What it must read and write in that time; a report, and the check itself, take some kilobytes."""

_REQUEST_SECONDS = 5.0
_IO = Path("/proc/self/io")
_LONGEST_WAIT_SECONDS = 30.0
_END = DONE | {"Failed", "Interrupted"}

logger = logging.getLogger(__name__)


class Reporter:
    """The report of one attempt. Call `update` during the run, and `close` once at its end, whatever that is.

    `listener` is called with each new report, on the caller's thread.
    """

    def __init__(
        self,
        job: AttemptJob,
        *,
        listener: Callable[[Report], None] | None = None,
        interval: float = INTERVAL_SECONDS,
        termination_path: Path | None = None,
    ) -> None:
        self.report = Report(
            namespace=job.namespace, name=job.name, uid=job.uid, attempt=job.attempt, phase="Validating"
        )
        self.saved_step: Callable[[], int | None] = lambda: None
        """Returns the step of the newest checkpoint that outlives the pod; set once it is known where these are."""
        self._listener = listener
        self._interval = interval
        self._termination_path = termination_path
        self._last_update = 0.0
        self._sender = _Sender(job.report.url, interval) if job.report else None
        self.update()

    def due(self) -> bool:
        """Whether enough time has passed to report progress."""
        return time.monotonic() - self._last_update >= self._interval

    def update(self, **fields: Any) -> None:
        """Replace fields of the report and send it."""
        self.report = self._with_saved_step(self.report.model_copy(update=fields))
        self._last_update = time.monotonic()
        if self._listener:
            self._listener(self.report)
        if self._sender:
            self._sender.offer(self.report)

    def _with_saved_step(self, report: Report) -> Report:
        """Looked up each time: at the end of an attempt a checkpoint is written after its last step."""
        step = self.saved_step()
        if report.progress is None or step is None:
            return report
        return report.model_copy(update={"progress": report.progress.model_copy(update={"saved_step": step})})

    def close(self) -> None:
        """Write the termination message, and send the last report for a bounded time."""
        if self._termination_path:
            _leave_message(self._termination_path, self.report)
        if self._sender:
            self._sender.close(FINAL_SECONDS)


def pod_reporter(job: AttemptJob, message: Path = Path(TERMINATION_MESSAGE_PATH)) -> Reporter:
    """The reporter of a pod: to the operator and to the kubelet, or to the `message` that is later copied there."""
    return Reporter(job, listener=PodLog() if job.report else None, termination_path=message)


class _Sender:
    """The thread that sends the newest report. Waits `interval` between reports unless the phase changed."""

    def __init__(self, url: str, interval: float) -> None:
        self._url = url
        self._interval = interval
        self._news = threading.Condition()
        self._newest: Report | None = None
        self._last: Report | None = None
        self._check_at, self._moved = time.monotonic() + CHECK_SECONDS, _bytes_moved()
        self._sent_phase: str | None = None
        self._not_before = 0.0
        self._deadline: float | None = None
        self._thread = threading.Thread(target=self._run, name="report", daemon=True)
        self._thread.start()

    def offer(self, report: Report) -> None:
        with self._news:
            self._newest = report
            self._news.notify()

    def close(self, seconds: float) -> None:
        with self._news:
            self._deadline = time.monotonic() + seconds
            self._news.notify()
        self._thread.join(seconds + _REQUEST_SECONDS)

    def _run(self) -> None:
        failures = 0
        while (report := self._next()) is not None:
            done, pause = _post(self._url, report)
            now = time.monotonic()
            if done:
                failures, self._sent_phase = 0, report.phase
                self._not_before = now + max(self._interval, pause)
                continue
            failures += 1
            self._not_before = now + max(pause, min(2.0 ** (failures - 1), _LONGEST_WAIT_SECONDS))
            self._put_back(report)

    def _next(self) -> Report | None:
        """Wait for the next report that is due; None after `close` if there is none, or no time left."""
        with self._news:
            while True:
                now = time.monotonic()
                if self._deadline is not None and (self._newest is None or now >= self._deadline):
                    return None
                if self._newest is None and now >= self._check_at:
                    self._newest = self._last_if_alive(now)
                if self._newest is not None and (now >= self._not_before or self._may_hurry()):
                    self._last, self._newest = self._newest, None
                    return self._last
                self._news.wait(self._wait_seconds(now))

    def _last_if_alive(self, now: float) -> Report | None:
        """The last report, if the process has made progress since the last check."""
        before, self._moved = self._moved, _bytes_moved()
        self._check_at = now + CHECK_SECONDS
        return self._last if self._moved - before >= LEAST_BYTES else None

    def _may_hurry(self) -> bool:
        """A new phase need not wait for the interval, but a pause requested by the server is kept (`_sent_phase`)."""
        return self._sent_phase is not None and self._newest is not None and self._newest.phase != self._sent_phase

    def _wait_seconds(self, now: float) -> float:
        ends = [self._deadline] if self._deadline is not None else []
        ends.append(self._check_at if self._newest is None else self._not_before)
        return max(min(ends) - now, 0.0)

    def _put_back(self, report: Report) -> None:
        with self._news:
            self._sent_phase = None
            if self._newest is None:
                self._newest = report


def _bytes_moved() -> int:
    """Bytes that this process has read and written so far, on disks and sockets; 0 if the kernel does not say."""
    try:
        counts = dict(line.split(": ") for line in _IO.read_text(encoding="ascii").splitlines())
        return int(counts["rchar"]) + int(counts["wchar"])
    except (OSError, ValueError, KeyError):
        return 0


def _post(url: str, report: Report) -> tuple[bool, float]:
    """Send one report; returns whether to drop it (accepted or refused for good), and seconds to pause."""
    try:
        status, pause = _request(url, _body(report))
        if status == http.HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            status, pause = _request(url, _body(_shortened(report)))
    except (OSError, http.client.HTTPException, ValueError) as error:
        logger.warning("The report did not reach the operator (%s); the run continues.", error)
        return False, 0.0
    if status < 300:
        return True, 0.0
    if status in (http.HTTPStatus.TOO_MANY_REQUESTS, http.HTTPStatus.REQUEST_TIMEOUT) or status >= 500:
        return False, pause
    if status in (http.HTTPStatus.UNAUTHORIZED, http.HTTPStatus.FORBIDDEN) and report.phase in _END:
        return False, pause  # the token may be about to be renewed, and there is no later report
    logger.warning("The operator refused a report with status %d; the run continues.", status)
    # The job is gone; with --cascade=orphan the run still goes on to its end. No need to report every 2 seconds.
    return True, _LONGEST_WAIT_SECONDS if status == http.HTTPStatus.GONE else 0.0


def _request(url: str, body: bytes) -> tuple[int, float]:
    """POST the body; returns the status and the seconds in Retry-After."""
    status, _, pause = to_operator(
        "POST", url, body, {"Content-Type": "application/json"}, seconds=_REQUEST_SECONDS, most=1024
    )
    return status, pause


def to_operator(
    method: str, url: str, body: bytes | BinaryIO, headers: dict[str, str], *, seconds: float, most: int
) -> tuple[int, bytes, float]:
    """A request with the pod's token; returns status, the first bytes of the response, and Retry-After."""
    parts = urlsplit(url)
    connection = http.client.HTTPSConnection(
        parts.hostname or "", parts.port or 443, timeout=seconds, context=operator_tls()
    )
    target = urlunsplit(("", "", parts.path or "/", parts.query, ""))
    with contextlib.closing(connection):
        connection.connect()  # separately, so that its errors are raised as they are
        # A server that refuses may close while the file is still being sent; its response can be read nevertheless.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.request(method, target, body, {**headers, "Authorization": f"Bearer {pod_token()}"})
        response = connection.getresponse()
        return response.status, response.read(most), retry_after(response.getheader("Retry-After"))


ADMISSION_SECONDS = 60.0
"""How long to retry with a token that the operator refuses: it may not have seen this pod yet."""


def pod_token() -> str:
    """The projected token, read each time because the kubelet renews it."""
    return Path(TOKEN_PATH).read_text(encoding="utf-8").strip()


def operator_tls() -> ssl.SSLContext:
    """TLS context for the operator: trusts the CA given to the pod, otherwise the system's."""
    authority = os.environ.get(REPORT_CA_VARIABLE)
    return ssl.create_default_context(cadata=authority) if authority else ssl.create_default_context()


def retry_after(header: str | None) -> float:
    """Retry-After in seconds; a date counts as one second."""
    if header is None:
        return 0.0
    return min(float(header), _LONGEST_WAIT_SECONDS) if header.isdecimal() else 1.0


def _body(report: Report) -> bytes:
    body = orjson.dumps(report.wire())
    return body if len(body) <= REPORT_MAX_BYTES else orjson.dumps(_shortened(report).wire())


def _shortened(report: Report) -> Report:
    """The report without most points of the curves, and with only the first bad rows."""
    loss, dataset = report.loss, report.dataset
    if loss:
        loss = loss.model_copy(update={"train": thin(loss.train, 20), "validation": thin(loss.validation, 20)})
    if dataset:
        splits = {
            name: split.model_copy(update={"problems": split.problems[:5]})
            for name in ("train", "validation", "test")
            if (split := getattr(dataset, name))
        }
        dataset = dataset.model_copy(update=splits)
    return report.model_copy(update={"loss": loss, "dataset": dataset})


def _leave_message(path: Path, report: Report) -> None:
    """Write the termination message. Without a kubelet the file does not exist, which is fine."""
    try:
        path.write_text(termination_message(report), encoding="utf-8")
    except OSError as error:
        logger.info("No termination message was left at %s: %s", path, error.strerror)
