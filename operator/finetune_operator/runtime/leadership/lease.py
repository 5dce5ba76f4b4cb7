"""Leadership of one replica by a coordination.k8s.io Lease, with the rules of client-go's leader election.

    follower ──(no Lease, released, or not renewed for its duration as watched by our own clock)──▶ leader
    leader ──(another holder, no successful renewal for `renew_deadline`, or a Lease older than the one it has
    written: etcd was restored)──▶ lost for good: the process ends

Clocks of machines are never compared: a Lease has expired when *we* have seen it unchanged for its duration.
`is_held` needs no request: a leader that was frozen knows on waking, before its first write, that its time is over.
A request that has been sent cannot be called back; resourceVersions are for those.
"""

import asyncio
import logging
import random
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from finetune_api.manifest import Manifest
from finetune_operator.runtime import metrics
from finetune_operator.runtime.errors import WENT_BACK, Conflict, KubeError, LeadershipLost, NotFound, Transient
from finetune_operator.runtime.kube import LEASES, Kube, version_of
from finetune_operator.runtime.leadership.lease_times import JITTER, LeaseTimes
from finetune_operator.runtime.repeats import Repeats
from finetune_operator.runtime.uptime import Clock, uptime

logger = logging.getLogger(__name__)

SILENT_DURATIONS = 4
"""After this many of our own durations without renewal, the holder is gone or uses a longer duration."""


@dataclass(frozen=True, slots=True)
class Observed:
    """A Lease's spec, and when it was first seen like this, by our own clock."""

    spec: dict[str, Any]
    at: float


def observe(before: Observed | None, spec: dict[str, Any], now: float) -> Observed:
    """The observation; its time is kept as long as the spec stays the same."""
    return before if before is not None and before.spec == spec else Observed(spec, now)


def may_take(observed: Observed, identity: str, now: float) -> bool:
    """Whether `identity` may take the Lease: it holds it already, or it was released or not renewed in time."""
    holder = observed.spec.get("holderIdentity")
    return (
        not holder or holder == identity or now >= observed.at + float(observed.spec.get("leaseDurationSeconds") or 0)
    )


def overdue_message(observed: Observed, duration: int, now: float) -> str | None:
    """A message if a Lease is not renewed and yet valid for far longer than `duration`; else None.

    A slow holder cannot be told from one that is gone, so the duration that the holder wrote counts.
    """
    holder, valid_for = observed.spec.get("holderIdentity"), float(observed.spec.get("leaseDurationSeconds") or 0)
    silent = now - observed.at
    if not holder or silent < SILENT_DURATIONS * duration:
        return None
    return (
        f"is held by {holder}, has not been renewed for {silent:.0f} s, and by its leaseDurationSeconds it holds for "
        f"{valid_for:.0f} s: nobody leads until then. If the pod of that holder is gone, delete the Lease"
    )


def claim(spec: dict[str, Any], identity: str, duration: int, now: datetime) -> dict[str, Any]:
    """The Lease's spec with `identity` as its holder, renewed `now`; a change of holder counts as a transition."""
    same = spec.get("holderIdentity") == identity
    transitions = int(spec.get("leaseTransitions") or 0)
    return {
        "holderIdentity": identity,
        "leaseDurationSeconds": duration,
        "acquireTime": spec.get("acquireTime") if same and spec.get("acquireTime") else micro_time(now),
        "renewTime": micro_time(now),
        "leaseTransitions": transitions if same or not spec else transitions + 1,
    }


def unique_identity(pod_name: str) -> str:
    """The pod's name, for people, and a unique part: a frozen process must not share its successor's identity."""
    return f"{pod_name}_{uuid.uuid4().hex[:12]}"


def micro_time(moment: datetime) -> str:
    """A meta/v1 MicroTime."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class Leadership:
    """Competes for a Lease and keeps it. Used once: leadership that was lost is not regained.

    Args:
        kube: unguarded, as a follower has to write the Lease too.
        identity: of this replica, different from every other process's: see `unique_identity`.
        times: of the Lease.
    """

    def __init__(
        self,
        kube: Kube,
        namespace: str,
        name: str,
        identity: str,
        times: LeaseTimes,
        *,
        clock: Clock = uptime,
    ) -> None:
        self._kube = kube
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._times = times
        self._clock = clock
        self._observed: Observed | None = None
        self._written: Manifest | None = None
        self._version = 0
        self._went_back = False
        self._renewed_at: float | None = None
        self._warned_of: Observed | None = None
        self._failures = Repeats(clock)
        self._gone = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def is_held(self) -> bool:
        """Whether this replica leads now, as far as it knows without a request."""
        return (
            self._renewed_at is not None
            and not self._gone.is_set()
            and self._clock() < self._renewed_at + self._times.renew_deadline
        )

    def assert_held(self) -> None:
        """Does nothing while `is_held`; a guard for Kube.

        Raises:
            LeadershipLost: the Lease is not held, or was not renewed in time.
        """
        if not self.is_held():
            raise LeadershipLost(f"{self._identity} does not hold Lease {self._namespace}/{self._name}")

    async def acquire(self) -> None:
        """Waits until this replica leads, however long that takes, and keeps the Lease renewed from then on."""
        while True:
            if await self._try_in_time():
                break
            self._warn_of_silence()
            await asyncio.sleep(self._times.retry * random.uniform(1.0, JITTER))  # noqa: S311 - jitter, no secret
        logger.info("%s leads: holds Lease %s/%s", self._identity, self._namespace, self._name)
        metrics.LEADER.set(1)
        metrics.LEASE_TRANSITIONS.labels("gained").inc()
        self._task = asyncio.get_running_loop().create_task(self._keep(), name="renew the Lease")

    async def lost(self) -> None:
        """Waits until leadership is gone: taken over, not renewed in time, or released."""
        await self._gone.wait()

    async def release(self) -> None:
        """Stops renewing and releases the Lease, so that others need not wait for it to expire. Never raises."""
        held = self.is_held()
        await self._stop()
        if not held or self._observed is None:
            return
        now = micro_time(datetime.now(UTC))
        spec = {"holderIdentity": "", "leaseDurationSeconds": 1, "acquireTime": now, "renewTime": now}
        try:
            async with asyncio.timeout(self._times.retry):
                lease = await self._kube.get(LEASES, self._name, self._namespace)
                if lease is not None and lease["spec"].get("holderIdentity") == self._identity:
                    await self._write(lease, spec)
        except (KubeError, TimeoutError) as error:
            logger.warning("the Lease could not be released, it runs out in %d s: %r", self._times.duration, error)
        else:
            logger.info("%s released Lease %s/%s", self._identity, self._namespace, self._name)

    def _log_failure(self, error: KubeError) -> None:
        """Log new failures only. Compared by status and reason, as messages may differ each time."""
        if self._failures.is_news(f"{error.status} {error.reason}"):
            logger.warning(
                "Lease %s/%s can be neither taken nor kept; it is tried again every %g s: %s",
                self._namespace, self._name, self._times.retry, error,
            )  # fmt: skip

    def _warn_of_silence(self) -> None:
        """Warn once if a holder has been silent for longer than our own duration would allow."""
        if self._observed is None or self._observed is self._warned_of:
            return
        if (why := overdue_message(self._observed, self._times.duration, self._clock())) is not None:
            self._warned_of = self._observed
            logger.warning("Lease %s/%s %s", self._namespace, self._name, why)

    async def _stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        self._lose("stopped")

    async def _keep(self) -> None:
        """Renews until that has failed for `renew_deadline` seconds, or another replica holds the Lease."""
        try:
            while True:
                await asyncio.sleep(self._times.retry)
                if not self.is_held():
                    return self._lose(f"was not renewed for {self._times.renew_deadline:g} s")
                async with asyncio.timeout(self._time_left()):
                    renewed = await self._try()
                if self._went_back:
                    return self._lose(WENT_BACK)
                if not renewed and self._taken():
                    return self._lose("was taken over by another replica")
        except TimeoutError:
            self._lose(f"was not renewed for {self._times.renew_deadline:g} s")
        except Exception as error:
            self._lose(f"could not be renewed: {error!r}")
            raise

    def _time_left(self) -> float:
        return max(0.0, (self._renewed_at or 0.0) + self._times.renew_deadline - self._clock())

    def _taken(self) -> bool:
        return self._observed is not None and self._observed.spec.get("holderIdentity") != self._identity

    def _lose(self, why: str) -> None:
        if self._gone.is_set():
            return
        self._gone.set()
        metrics.LEADER.set(0)
        if self._renewed_at is not None and why != "stopped":
            metrics.LEASE_TRANSITIONS.labels("lost").inc()
            logger.error("%s leads no more: Lease %s/%s %s", self._identity, self._namespace, self._name, why)

    async def _try_in_time(self) -> bool:
        """`_try` for a follower: an answer later than `renew_deadline` does not count.

        A half-open connection never brings one; the next attempt uses another connection.
        """
        try:
            async with asyncio.timeout(self._times.renew_deadline):
                return await self._try()
        except TimeoutError:
            self._log_failure(Transient(0, "Timeout", f"no answer within {self._times.renew_deadline:g} s"))
            return False

    async def _try(self) -> bool:
        """One attempt to take or renew the Lease; False if another holds it or the API server cannot be asked."""
        before = self._clock()  # not after: the Lease may have been written long before the answer came
        try:
            written = await self._renew() or await self._take()
        except Conflict:
            return False  # another replica was faster; the next attempt sees its name
        except KubeError as error:
            self._log_failure(error)
            return False
        if self._failures.over():
            logger.info("Lease %s/%s can be asked for again", self._namespace, self._name)
        if written is None or self._is_older(written):
            return False
        self._written, self._version = written, version_of(written)
        self._observed = Observed(written.get("spec") or {}, self._clock())
        self._renewed_at = before
        return True

    async def _renew(self) -> Manifest | None:
        """Write onto the version that was written last, without reading: one request less for a busy server.

        Returns:
            The Lease; None if that version is no longer the current one.
        """
        if self._written is None:
            return None
        try:
            return await self._claim(self._written)
        except Conflict:
            self._written = None
            return None

    async def _take(self) -> Manifest | None:
        """Read the Lease, and write it if allowed; None if another replica holds it."""
        lease = await self._kube.get(LEASES, self._name, self._namespace)
        self._observed = observe(self._observed, (lease or {}).get("spec") or {}, self._clock())
        if lease is not None and (self._is_older(lease) or not self._may_write()):
            return None
        return await self._claim(lease)

    async def _claim(self, lease: Manifest | None) -> Manifest:
        spec = (lease or {}).get("spec") or {}
        return await self._write(lease, claim(spec, self._identity, self._times.duration, datetime.now(UTC)))

    def _is_older(self, lease: Manifest) -> bool:
        """Whether the server's state is older than this leader's last write: all that this process knows may be undone.

        A Lease that was deleted and created again has a later version.
        """
        self._went_back = self._went_back or (self._renewed_at is not None and 0 < version_of(lease) < self._version)
        return self._went_back

    def _may_write(self) -> bool:
        """A follower may take a free or expired Lease; a leader may only renew one that still has its name."""
        if self._observed is None:
            return False
        if self._renewed_at is not None:
            return not self._taken()
        return may_take(self._observed, self._identity, self._clock())

    async def _write(self, lease: Manifest | None, spec: dict[str, Any]) -> Manifest:
        """Writes `spec` onto exactly the version of the Lease that was read, or creates it."""
        if lease is None:
            metadata = {"name": self._name, "namespace": self._namespace}
            body = {"apiVersion": LEASES.api_version, "kind": LEASES.kind, "metadata": metadata, "spec": spec}
            return await self._kube.create(LEASES, body)
        body = {"metadata": {"resourceVersion": lease["metadata"]["resourceVersion"]}, "spec": spec}
        try:
            return await self._kube.merge_patch(LEASES, self._name, self._namespace, body)
        except NotFound as error:
            raise Conflict(error.status, error.reason, "the Lease was deleted meanwhile") from error
