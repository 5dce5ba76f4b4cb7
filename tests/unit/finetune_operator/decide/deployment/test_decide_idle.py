"""Whether a deployment is idle, and what that means: one row for each state of knowledge."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from finetune_api.deployment import DeploymentUsage, Idle
from finetune_api.reasons import Reason
from finetune_operator.decide.deployment.idle import (
    COARSE,
    FINE,
    Activity,
    Figures,
    Limits,
    PodUse,
    check,
    fall_asleep,
    is_asleep,
    of_figures,
    of_pods,
    sleeping,
    span,
    usage_of,
    woken,
)
from tests.unit.finetune_operator.decide.given import at, stamp

DAY = timedelta(days=1)
STOPS, WATCHES = Idle(after_seconds=3600, action="Delete"), Idle(after_seconds=3600)


def quiet(seconds: float) -> Activity:
    return Activity(last=at(-seconds), until=at(0))


def recorded(seconds: float, **fields: Any) -> DeploymentUsage:
    return DeploymentUsage(last_request_at=stamp(seconds), **fields)


def untold(seconds: float) -> Activity:
    return Activity(unknown="no rights", started=at(-seconds))


STATES: dict[str, tuple[Activity, Limits, tuple[str, Reason], dict[str, Any]]] = {
    # what is known, limits, condition, what comes of it
    "asked lately": (quiet(60), Limits(STOPS, DAY), ("False", Reason.IN_USE), {}),
    "quiet for less than the limit": (quiet(3599), Limits(STOPS, DAY), ("False", Reason.IN_USE), {}),
    "quiet for the limit": (quiet(3600), Limits(STOPS, DAY), ("True", Reason.IDLE), {"sleeps": True}),
    "quiet, the figures are late": (
        Activity(last=at(-3700), until=at(-600)),
        Limits(STOPS, DAY),
        ("False", Reason.IN_USE),
        {},
    ),
    "quiet for long, and to be stopped": (quiet(86400), Limits(STOPS, DAY), ("True", Reason.IDLE), {"sleeps": True}),
    "quiet, and nothing is to be done": (quiet(3600), Limits(WATCHES, DAY), ("True", Reason.IDLE), {}),
    "quiet for a day, and nothing is to be done": (
        quiet(86400),
        Limits(WATCHES, DAY),
        ("True", Reason.BILLED_WHILE_IDLE),
        {"warns": True},
    ),
    "quiet for a day, without a limit": (
        quiet(86400),
        Limits(None, DAY),
        ("True", Reason.BILLED_WHILE_IDLE),
        {"warns": True},
    ),
    "quiet for a day, and free": (quiet(86400), Limits(None, None), ("False", Reason.IN_USE), {}),
    "quiet for a day, free, and to be stopped": (
        quiet(86400),
        Limits(STOPS, None),
        ("True", Reason.IDLE),
        {"sleeps": True},
    ),
    "nobody knows": (untold(86399), Limits(STOPS, DAY), ("Unknown", Reason.USAGE_UNKNOWN), {}),
    "nobody knows for a day": (untold(86400), Limits(STOPS, DAY), ("Unknown", Reason.USAGE_UNKNOWN), {"warns": True}),
    "nobody knows for a day, and free": (untold(86400), Limits(STOPS, None), ("Unknown", Reason.USAGE_UNKNOWN), {}),
}


@pytest.mark.parametrize("name", STATES)
def test_every_state_of_knowledge_has_its_condition(name: str) -> None:
    activity, limits, condition, comes = STATES[name]
    found = check(None, activity, limits, at(0))
    assert (found.fact.status, found.fact.reason) == condition
    assert {"sleeps": found.sleeps, "warns": found.warns} == {"sleeps": False, "warns": False} | comes


def test_a_warning_is_given_again_after_a_day_and_not_before() -> None:
    limits = Limits(None, DAY)
    first = check(None, quiet(86400), limits, at(0))
    assert first.warns
    soon, late = at(86399), at(86400)
    assert not check(first.usage, Activity(at(-86400), soon), limits, soon).warns
    again = check(first.usage, Activity(at(-86400), late), limits, late)
    assert again.warns
    assert again.fact.message == first.fact.message, "the same text, or Events would pile up"
    used = check(again.usage, Activity(late, late), limits, late)
    assert used.usage.warned_at is None


def test_a_day_in_which_nobody_can_tell_begins_when_it_was_last_asked_and_is_told_of_once() -> None:
    limits = Limits(None, DAY, " with 24.00 USD an hour")
    assert not check(recorded(-86399), untold(9e6), limits, at(0)).warns
    first = check(recorded(-86400), untold(9e6), limits, at(0))
    assert first.fact.message.startswith(
        "it is billed with 24.00 USD an hour: delete it if nobody needs it. It is unknown"
    )
    assert first.warns
    assert check(first.usage, untold(9e6), limits, at(60)) == replace(first, warns=False)


def test_the_time_is_written_again_only_when_it_has_moved_by_a_tenth_of_the_limit() -> None:
    limits = Limits(STOPS, DAY)
    usage = check(None, quiet(0), limits, at(0)).usage
    assert usage.last_request_at == stamp(0)
    assert check(usage, Activity(at(359), at(359)), limits, at(359)).usage == usage
    assert check(usage, Activity(at(360), at(360)), limits, at(360)).usage.last_request_at == stamp(360)


def test_what_sleeps_wakes_by_a_new_spec_or_another_value_of_the_annotation() -> None:
    asleep = fall_asleep(3, "a", at(0))
    assert is_asleep(asleep, 3, "a")
    assert not is_asleep(asleep, 4, "a")
    assert not is_asleep(asleep, 3, "b")
    assert not is_asleep(asleep, 3, None)
    assert not is_asleep(None, 3, None)


FIGURES: dict[str, tuple[float | None, DeploymentUsage, float, float | None]] = {
    # last in the figures, record, start of the deployment, last that is known
    "nothing was ever shown": (None, DeploymentUsage(), -9000, None),
    "the operator's own question": (-8000, DeploymentUsage(), -9000, -8000),
    "nothing since the record": (None, recorded(-5000), -9000, -5000),
    "something since the record": (-100, recorded(-5000), -9000, -100),
    "recreated since the record": (None, recorded(-5000), -50, -50),
}


@pytest.mark.parametrize("name", FIGURES)
def test_a_providers_figures_count_once_they_have_shown_anything(name: str) -> None:
    last, usage, started, known = FIGURES[name]
    figures = Figures(None if last is None else at(last), at(0))
    assert of_figures(figures, usage, at(started)).last == (None if known is None else at(known))


def test_a_record_tells_nothing_of_another_deployment() -> None:
    usage = recorded(-5, deployment="md-v1")
    assert usage_of(usage, "md-v1") == usage
    assert usage_of(usage, "md-v2") == DeploymentUsage(deployment="md-v2")


def test_who_brings_a_deployment_back_counts_as_one_who_asked_it() -> None:
    asleep = recorded(-9000, deployment="md-v1", warned_at=stamp(-50))
    assert woken(asleep, at(0)) == recorded(0, deployment="md-v1")
    assert woken(None, at(0)) == recorded(0)


@pytest.mark.parametrize(
    ("looked_back", "of"), [(timedelta(0), FINE), (DAY, FINE), (DAY + timedelta(seconds=1), COARSE)]
)
def test_the_longer_one_looks_back_the_coarser_a_providers_figures_are(looked_back: timedelta, of: timedelta) -> None:
    assert span(at(0) - looked_back, at(0)) == of


PODS: dict[str, tuple[list[PodUse], DeploymentUsage | None, float | None]] = {
    # what servers tell, record, last request that is known
    "no server": ([], recorded(-5), None),
    "never asked": ([PodUse(at(-9000))], None, -9000),
    "asked": ([PodUse(at(-9000), last=at(-40))], None, -40),
    "two, one asked": ([PodUse(at(-9000)), PodUse(at(-8000), last=at(-40))], None, -40),
    "asked before a restart": ([PodUse(at(-50))], recorded(-5000), -50),
    "asked, and the server's clock runs ahead": ([PodUse(at(-9000), last=at(30))], None, 0),
    "at work": ([PodUse(at(-9000), last=at(-4000), busy=True)], None, 0),
    "counts for the first time": ([PodUse(at(-9000), counted=7)], None, 0),
    "counts the same": ([PodUse(at(-9000), counted=7)], recorded(-5000, counted=7), -5000),
    "counts more": ([PodUse(at(-9000), counted=8)], recorded(-5000, counted=7), 0),
    "counts less: one was restarted": ([PodUse(at(-20), counted=0)], recorded(-5000, counted=7), 0),
}


@pytest.mark.parametrize("name", PODS)
def test_what_servers_tell_is_put_together_and_doubt_counts_as_a_request(name: str) -> None:
    pods, usage, known = PODS[name]
    assert of_pods(pods, usage, at(0)).last == (None if known is None else at(known))


YEAR = 365 * 86400
TELLS: dict[str, Callable[[DeploymentUsage, float], Activity]] = {
    "pods": lambda usage, now: of_pods([PodUse(at(-9000), last=at(-8000))], usage, at(now)),
    "counts": lambda usage, now: of_pods([PodUse(at(-9000), counted=7)], usage, at(now)),
    "figures": lambda usage, now: of_figures(Figures(None, at(now)), usage, at(-9000)),
}


@pytest.mark.parametrize("tells", TELLS)
def test_a_time_to_come_that_another_clock_has_written_keeps_nothing_awake_for_a_year(tells: str) -> None:
    limits, usage = Limits(STOPS, None), recorded(YEAR, counted=7)
    found = check(usage, TELLS[tells](usage, 0), limits, at(0))
    assert (found.sleeps, found.usage.last_request_at) == (False, stamp(0))
    later = check(found.usage, TELLS[tells](found.usage, 3600), limits, at(3600))
    assert later.sleeps


def test_a_warning_of_a_time_to_come_does_not_stand_for_the_next_one() -> None:
    usage = recorded(-86400, warned_at=stamp(YEAR))
    assert check(usage, quiet(86400), Limits(None, DAY), at(0)).warns


def test_without_any_limit_the_time_is_written_whenever_it_has_moved() -> None:
    limits = Limits(None, None)
    usage = check(None, Activity(at(0), at(0), counted=1), limits, at(0)).usage
    assert check(usage, Activity(at(0), at(60), counted=1), limits, at(60)).usage == usage
    moved = check(usage, Activity(at(1), at(60), counted=2), limits, at(60)).usage
    assert (moved.last_request_at, moved.counted) == (stamp(1), 2)


def test_what_sleeps_says_since_when_and_since_when_nobody_had_asked_it_where_that_is_known() -> None:
    asleep = fall_asleep(1, None, at(7200))
    stopped = f"so it was stopped at {stamp(7200)}"
    asked = DeploymentUsage(last_request_at=stamp(0))
    for usage, said in (
        (None, stopped),
        (DeploymentUsage(), stopped),
        (asked, f"it had received no requests since {stamp(0)}, {stopped}"),
    ):
        found = sleeping(asleep, usage)
        assert (found.status, found.reason, found.message) == ("True", Reason.IDLE, said)
