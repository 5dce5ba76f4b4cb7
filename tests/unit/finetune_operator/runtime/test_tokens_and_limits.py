"""Tokens are reviewed rarely and forgotten in time; buckets let through what they promise."""

import pytest

from finetune_operator.runtime.kube import TokenIdentity
from finetune_operator.runtime.lru_cache import LRUCache
from finetune_operator.runtime.report_server import tokens
from finetune_operator.runtime.report_server.tokens import TokenReviewer, TooManyUnknownTokens
from finetune_operator.runtime.token_bucket import TokenBucket

POD = TokenIdentity("system:serviceaccount:team:default", "uid", pod_uid="p")


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def reviewer(answers):
    clock, asked = Clock(), []

    async def review(token, audience):  # noqa: ARG001
        asked.append(token)
        return answers.get(token)

    return TokenReviewer(review, "aud", clock), clock, asked


async def test_a_valid_token_is_remembered_for_a_minute_and_no_longer():
    identify, clock, asked = reviewer({"aaaa.bbbb.cccc": POD})
    for seconds in (0, 59, 59.9):
        clock.now = 100.0 + seconds
        assert await identify.identify("aaaa.bbbb.cccc", "10.0.0.1") == POD
    assert len(asked) == 1
    clock.now = 160.0
    assert await identify.identify("aaaa.bbbb.cccc", "10.0.0.1") == POD
    assert len(asked) == 2


async def test_an_invalid_token_is_remembered_shortly():
    answers = {}
    identify, clock, asked = reviewer(answers)
    assert await identify.identify("aaaa.bbbb.cccc", "10.0.0.1") is None
    clock.now += 9
    assert await identify.identify("aaaa.bbbb.cccc", "10.0.0.1") is None
    assert len(asked) == 1
    answers["aaaa.bbbb.cccc"] = POD
    clock.now += 2
    assert await identify.identify("aaaa.bbbb.cccc", "10.0.0.1") == POD


async def test_trouble_while_asking_is_not_remembered():
    fails = [True]

    async def review(token, audience):  # noqa: ARG001
        if fails.pop() if fails else False:
            raise RuntimeError
        return POD

    identify = TokenReviewer(review, "aud", Clock())
    with pytest.raises(RuntimeError):
        await identify.identify("aaaa.bbbb.cccc", "10.0.0.1")
    assert await identify.identify("aaaa.bbbb.cccc", "10.0.0.1") == POD


async def test_unknown_tokens_are_limited_per_address_and_known_ones_are_not():
    identify, clock, asked = reviewer({"aaaa.bbbb.cccc": POD})
    await identify.identify("aaaa.bbbb.cccc", "10.0.0.1")
    for number in range(int(tokens.UNKNOWN_AT_ONCE) - 1):
        assert await identify.identify(f"aaaa.bbbb.{number:04d}", "10.0.0.1") is None
    with pytest.raises(TooManyUnknownTokens):
        await identify.identify("aaaa.bbbb.0019", "10.0.0.1")
    assert len(asked) == tokens.UNKNOWN_AT_ONCE
    assert await identify.identify("aaaa.bbbb.cccc", "10.0.0.1") == POD
    assert await identify.identify("aaaa.bbbb.0019", "10.0.0.2") is None
    clock.now += 0.5
    assert await identify.identify("aaaa.bbbb.9999", "10.0.0.1") is None


async def test_trainers_that_report_from_behind_one_address_are_strangers_once():
    """A proxy beside the operator, or a network that hides pods behind a node, gives all of them one address."""
    pods = {f"aaaa.bbbb.{number:04d}": POD for number in range(400)}
    identify, clock, asked = reviewer(pods)
    refused = []
    for _round in range(30):
        refused.append(0)
        for token in pods:
            try:
                assert await identify.identify(token, "127.0.0.6") == POD
            except TooManyUnknownTokens:
                refused[-1] += 1
            clock.now += 10 / len(pods)
    assert refused[0] > 0, "new ones come slowly"
    assert refused[-5:] == [0] * 5
    assert len(asked) <= len(pods) * 5, "and are asked about once a minute"


@pytest.mark.parametrize("token", ["", "a.b.c", "aaaa.bbbb", "aaaa.bbbb.cc cc", "aaaa.bbbb.cccc\n", "x" * 9000])
async def test_what_is_no_token_at_all_is_not_asked_about(token):
    identify, _, asked = reviewer({})
    assert await identify.identify(token, "10.0.0.1") is None
    assert asked == []


def test_memory_is_bounded_and_what_is_used_stays():
    recent = LRUCache(3)
    for number in range(10):
        recent.put(str(number), number)
        recent.get("0") if number < 2 else recent.put("0", 0)
    assert len(recent) == 3
    assert recent.get("0") == 0
    assert recent.get("5") is None


def test_what_says_no_more_than_nothing_is_forgotten_with_the_next_one():
    clock = Clock()
    recent = LRUCache(100, TokenBucket.is_full)
    for pod in "abc":
        assert recent.put(pod, TokenBucket(2.0, 3, clock)).take() == 0.0
        clock.now += 0.2
    assert len(recent) == 3  # half a second after its report a pod's bucket is full again
    recent.put("d", TokenBucket(2.0, 3, clock))
    assert [pod for pod in "abcd" if recent.get(pod)] == ["b", "c", "d"]


async def test_verdicts_that_have_ended_are_forgotten_though_there_is_room():
    identify, clock, _ = reviewer({})
    for number in range(10):
        await identify.identify(f"aaaa.bbbb.{number:04}", f"10.0.0.{number}")
    clock.now += tokens.INVALID_SECONDS
    await identify.identify("aaaa.bbbb.last", "10.0.0.1")
    assert len(identify._verdicts) == 1


def test_a_bucket_lets_its_burst_through_and_then_its_rate():
    clock = Clock()
    bucket = TokenBucket(2.0, 3, clock)
    assert [bucket.take() for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]
    clock.now += 0.5
    assert bucket.take() == 0.0
    assert bucket.take() == 0.5
    clock.now += 1000
    assert [bucket.take() > 0 for _ in range(4)] == [False, False, False, True]


def test_reservations_queue_up_behind_each_other():
    bucket = TokenBucket(10.0, 1, Clock())
    assert [bucket.reserve() for _ in range(4)] == pytest.approx([0.0, 0.1, 0.2, 0.3])


@pytest.mark.parametrize(("rate", "burst"), [(0, 1), (-1, 1), (1, 0)])
def test_a_bucket_that_would_never_let_anything_through_is_refused(rate, burst):
    with pytest.raises(ValueError, match="token bucket"):
        TokenBucket(rate, burst, Clock())
