"""Leadership: one at a time, lost in time, noticed by a frozen leader before it writes. Time jumps."""

import asyncio
import copy
from datetime import UTC, datetime

import fake_time
import pytest

from finetune_operator.runtime.errors import Conflict, Forbidden, LeadershipLost, NotFound, Transient
from finetune_operator.runtime.leadership.lease import (
    Leadership,
    Observed,
    claim,
    may_take,
    micro_time,
    observe,
    unique_identity,
)
from finetune_operator.runtime.leadership.lease_times import LeaseTimes

T0 = datetime(2026, 11, 21, 10, 0, 0, 123456, tzinfo=UTC)


class OneLease:
    """A Lease with a resourceVersion that guards it; `away` is how a broken API server answers."""

    def __init__(self):
        self.lease = None
        self.version = 0
        self.away = None
        self.writes = []
        self.reads = 0

    async def get(self, resource, name, namespace):  # noqa: ARG002
        self.reads += 1
        await self._reach()
        return copy.deepcopy(self.lease)

    async def create(self, resource, body):  # noqa: ARG002
        await self._reach()
        if self.lease is not None:
            raise Conflict(409, "AlreadyExists", "it is there")
        return self._keep(body)

    async def merge_patch(self, resource, name, namespace, body):  # noqa: ARG002
        await self._reach()
        if self.lease is None:
            raise NotFound(404, "NotFound", "it is gone")
        if body["metadata"]["resourceVersion"] != self.lease["metadata"]["resourceVersion"]:
            raise Conflict(409, "Conflict", "it has changed")
        return self._keep({**self.lease, "spec": {**self.lease["spec"], **body["spec"]}})

    def _keep(self, body):
        self.version += 1
        self.lease = copy.deepcopy(body)
        self.lease["metadata"]["resourceVersion"] = str(self.version)
        self.writes.append(self.lease["spec"]["holderIdentity"])
        return copy.deepcopy(self.lease)

    async def _reach(self):
        await asyncio.sleep(0.01)
        if isinstance(self.away, Exception):
            raise self.away
        if self.away:
            await asyncio.Event().wait()

    @property
    def holder(self):
        return self.lease["spec"]["holderIdentity"]


def contender(server, identity, clock=None):
    return Leadership(server, "system", "lease", identity, LeaseTimes(), clock=clock or asyncio.get_running_loop().time)


@pytest.mark.parametrize(
    ("holder", "age", "identity", "takes"),
    [("a", 0, "a", True), ("a", 14.9, "b", False), ("a", 15, "b", True), ("", 0, "b", True), (None, 0, "b", True)],
)
def test_who_may_take_a_lease(holder, age, identity, takes):
    observed = Observed({"holderIdentity": holder, "leaseDurationSeconds": 15}, at=100.0)
    assert may_take(observed, identity, 100.0 + age) is takes


def test_a_lease_ages_by_our_own_clock_from_when_we_saw_it_change():
    first = observe(None, {"renewTime": "1999"}, 5.0)
    assert observe(first, {"renewTime": "1999"}, 50.0).at == 5.0
    assert observe(first, {"renewTime": "2030"}, 50.0).at == 50.0


@pytest.mark.parametrize(
    ("spec", "transitions", "acquired"),
    [
        ({}, 0, micro_time(T0)),
        ({"holderIdentity": "me", "leaseTransitions": 3, "acquireTime": "then"}, 3, "then"),
        ({"holderIdentity": "other", "leaseTransitions": 3, "acquireTime": "then"}, 4, micro_time(T0)),
        ({"holderIdentity": "", "leaseTransitions": 3, "acquireTime": "then"}, 4, micro_time(T0)),
    ],
)
def test_a_claim_counts_transitions_and_keeps_the_time_of_acquiring(spec, transitions, acquired):
    claimed = claim(spec, "me", 15, T0)
    assert (claimed["leaseTransitions"], claimed["acquireTime"]) == (transitions, acquired)
    assert claimed["holderIdentity"] == "me"
    assert claimed["renewTime"] == "2026-11-21T10:00:00.123456Z"


def test_identities_of_two_processes_of_one_pod_differ():
    assert unique_identity("pod-0") != unique_identity("pod-0")
    assert unique_identity("pod-0").startswith("pod-0_")


@pytest.mark.parametrize(("duration", "deadline", "retry"), [(10, 10, 2), (15, 2, 2), (15, 2.4, 2), (15, 9.5, 8)])
def test_times_that_cannot_work_are_refused(duration, deadline, retry):
    with pytest.raises(ValueError, match="must rise"):
        LeaseTimes(duration, deadline, retry)


def test_one_of_two_leads_and_the_other_follows_after_a_release_at_once():
    async def main():
        server = OneLease()
        first, second = contender(server, "a"), contender(server, "b")
        await first.acquire()
        following = asyncio.create_task(second.acquire())
        await asyncio.sleep(120)
        assert (first.is_held(), second.is_held(), server.holder) == (True, False, "a")
        await first.release()
        await first.lost()
        assert not first.is_held()
        started = asyncio.get_running_loop().time()
        await following
        assert asyncio.get_running_loop().time() - started < 4
        assert (second.is_held(), server.holder) == (True, "b")
        assert server.lease["spec"]["leaseTransitions"] == 1
        await second.release()

    fake_time.run(main())


def test_a_follower_says_once_that_a_lease_holds_for_long_and_nobody_renews_it(caplog):
    """Somebody has edited it, or its holder had other times: who is gone, and how long that lasts, only people know."""

    async def main():
        server = OneLease()
        spec = {"holderIdentity": "gone_1", "leaseDurationSeconds": 86_400, "renewTime": "2036-11-21T10:00:00.000000Z"}
        server._keep({"metadata": {}, "spec": spec})
        follower = contender(server, "a")
        following = asyncio.create_task(follower.acquire())
        await asyncio.sleep(50)
        assert not caplog.records, "a live holder may be late"
        await asyncio.sleep(600)
        [told] = caplog.records
        assert "Lease system/lease is held by gone_1" in told.getMessage()
        assert "holds for 86400 s" in told.getMessage()
        server.lease = None
        await following
        await follower.release()

    fake_time.run(main())


def test_a_lease_of_a_time_to_come_is_waited_for_no_longer_than_its_duration():
    """Whatever clock has written it: only how long it stays the same counts, and that by our own."""

    async def main():
        server = OneLease()
        spec = {"holderIdentity": "gone_1", "leaseDurationSeconds": 15, "renewTime": "2036-11-21T10:00:00.000000Z"}
        server._keep({"metadata": {}, "spec": spec})
        follower = contender(server, "a")
        await asyncio.wait_for(follower.acquire(), 20)
        await follower.release()

    fake_time.run(main())


def test_two_that_start_together_agree_on_one():
    async def main():
        server = OneLease()
        contenders = [contender(server, name) for name in "abc"]
        tasks = [asyncio.create_task(c.acquire()) for c in contenders]
        await asyncio.sleep(60)
        assert sum(c.is_held() for c in contenders) == 1
        assert sum(t.done() for t in tasks) == 1
        for task in tasks:
            task.cancel()
        await asyncio.gather(*(c.release() for c in contenders))

    fake_time.run(main())


@pytest.mark.parametrize("away", [Transient(503, "Unavailable", "no"), True])
def test_a_leader_cut_off_stops_before_another_may_start(away):
    """Never two at once: watched every 50 ms over the whole take-over, whether the server refuses or is silent."""

    async def main():
        server, cut_off = OneLease(), OneLease()
        first, second = contender(server, "a"), contender(server, "b")
        await first.acquire()
        following = asyncio.create_task(second.acquire())
        await asyncio.sleep(30)
        cut_off.lease, cut_off.away = server.lease, away
        first._kube = cut_off
        gone_at = None
        loop = asyncio.get_running_loop()
        started = loop.time()
        while not following.done():
            assert not (first.is_held() and second.is_held())
            if gone_at is None and not first.is_held():
                gone_at = loop.time() - started
            await asyncio.sleep(0.05)
        assert 7 < gone_at < 10.1
        assert 10 < loop.time() - started < 20
        await first.lost()
        await second.release()

    fake_time.run(main())


def test_a_frozen_leader_knows_on_waking_before_it_could_write():
    async def main():
        server = OneLease()
        loop = asyncio.get_running_loop()
        slept = 0.0
        first = contender(server, "a", clock=lambda: loop.time() + slept)
        await first.acquire()
        first.assert_held()
        slept = 60.0  # SIGSTOP, SIGCONT: the clock went on, the loop has not run yet
        with pytest.raises(LeadershipLost, match="a does not hold Lease system/lease"):
            first.assert_held()
        await asyncio.sleep(3)
        await asyncio.wait_for(first.lost(), 1)
        assert server.writes == ["a"], "what is lost must not be renewed"

    fake_time.run(main())


def test_a_leader_that_was_replaced_notices_at_the_next_renewal():
    async def main():
        server = OneLease()
        first = contender(server, "a")
        await first.acquire()
        server._keep({**server.lease, "spec": {**server.lease["spec"], "holderIdentity": "b"}})
        await asyncio.wait_for(first.lost(), 3)
        assert not first.is_held()
        assert server.holder == "b"
        await first.release()
        assert server.holder == "b", "a release must not take the Lease from its new holder"

    fake_time.run(main())


def test_a_leader_renews_without_reading_what_it_wrote_itself():
    async def main():
        server = OneLease()
        leader = contender(server, "a")
        await leader.acquire()
        reads, writes = server.reads, len(server.writes)
        await asyncio.sleep(20)
        assert leader.is_held()
        assert len(server.writes) >= writes + 9
        return server.reads - reads

    assert fake_time.run(main()) == 0


def test_a_renewal_onto_what_somebody_else_has_changed_reads_it_and_goes_on():
    async def main():
        server = OneLease()
        leader = contender(server, "a")
        await leader.acquire()
        server.lease["metadata"] |= {"resourceVersion": "labelled", "labels": {"team": "ml"}}
        await asyncio.sleep(20)
        return leader.is_held(), server.lease["metadata"]["labels"]

    assert fake_time.run(main()) == (True, {"team": "ml"})


def test_a_lease_that_somebody_deleted_is_made_again():
    async def main():
        server = OneLease()
        first = contender(server, "a")
        await first.acquire()
        server.lease = None
        await asyncio.sleep(5)
        assert first.is_held()
        assert server.holder == "a"
        await first.release()

    fake_time.run(main())


def test_leadership_outlives_short_troubles_of_the_api_server():
    async def main():
        server = OneLease()
        first = contender(server, "a")
        await first.acquire()
        for _ in range(5):
            server.away = Transient(500, "InternalError", "no")
            await asyncio.sleep(6)
            assert first.is_held()
            server.away = None
            await asyncio.sleep(6)
        assert first.is_held()
        await first.release()

    fake_time.run(main())


def test_a_follower_waits_through_troubles_of_the_api_server():
    async def main():
        server = OneLease()
        server.away = Transient(500, "InternalError", "no")
        first = contender(server, "a")
        task = asyncio.create_task(first.acquire())
        await asyncio.sleep(30)
        assert not task.done()
        server.away = None
        await asyncio.wait_for(task, 5)
        await first.release()

    fake_time.run(main())


def test_a_follower_does_not_wait_for_an_answer_on_a_connection_that_is_dead(caplog):
    """What has cut the leader off may have left the follower's connection half-open: the take-over is not to wait."""

    async def main():
        server = OneLease()
        leader, follower = contender(server, "a"), contender(server, "b")
        await leader.acquire()
        following = asyncio.create_task(follower.acquire())
        await asyncio.sleep(20)
        server.away = True
        await asyncio.sleep(4)  # both have asked, and nobody will answer
        server.away = None
        async with asyncio.timeout(2 * LeaseTimes().duration):
            await following
        assert (leader.is_held(), follower.is_held()) == (False, True)
        assert "no answer within 10 s" in caplog.text
        await follower.release()

    fake_time.run(main())


def test_a_trouble_with_the_lease_is_told_once_and_then_every_few_minutes(caplog):
    """Each try is two seconds after the last: an hour without rights would be 1,800 lines that push out all others."""

    async def main():
        server = OneLease()
        server.away = Forbidden(403, "Forbidden", "cannot get resource leases")
        follower = contender(server, "a")
        task = asyncio.create_task(follower.acquire())
        await asyncio.sleep(290)
        [told] = caplog.records
        assert "Lease system/lease can be neither taken nor kept" in told.getMessage()
        assert "cannot get resource leases" in told.getMessage()
        await asyncio.sleep(600)
        assert len(caplog.records) == 3
        server.away = Transient(503, "Unavailable", "no")
        await asyncio.sleep(5)
        assert len(caplog.records) == 4, "another trouble is told at once"
        caplog.set_level("INFO")
        server.away = None
        await asyncio.wait_for(task, 5)
        assert "Lease system/lease can be asked for again" in caplog.text
        server.away = Transient(503, "Unavailable", "no")
        await asyncio.sleep(3)
        assert caplog.messages[-1].endswith("503 Unavailable: no"), "it had been over, and is news"
        await follower.release()

    fake_time.run(main())


@pytest.mark.parametrize("had", ["an older Lease", "no Lease"])
def test_a_leader_whose_server_was_put_back_leads_no_more(caplog, had):
    """All that it has seen is of a future that is none: a new process begins with what there is."""

    async def main():
        server = OneLease()
        leader = contender(server, "a")
        await leader.acquire()
        await asyncio.sleep(10)
        old, version = copy.deepcopy(server.lease), server.version
        await asyncio.sleep(10)
        server.lease, server.version = (old, version) if had == "an older Lease" else (None, 0)
        lost = asyncio.create_task(leader.lost())
        async with asyncio.timeout(5):
            await lost
        assert not leader.is_held()
        assert "Lease system/lease is older than it was: the API server's state was put back" in caplog.text
        await leader.release()

    fake_time.run(main())


def test_a_leader_whose_lease_is_deleted_or_edited_leads_on():
    async def main():
        server = OneLease()
        leader = contender(server, "a")
        await leader.acquire()
        server.lease = None
        await asyncio.sleep(10)
        server._keep(server.lease)
        await asyncio.sleep(10)
        assert leader.is_held()
        await leader.release()

    fake_time.run(main())
