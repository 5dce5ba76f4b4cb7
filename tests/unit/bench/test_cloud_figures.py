"""What the benchmark of cloud jobs makes of what it has recorded."""

from types import SimpleNamespace

import pytest

from bench.cloud import page, phase
from bench.cloud.__main__ import connections
from bench.cloud.checks import DATA
from bench.cloud.phase import Calls, Job, Phase


def given_cloud(name, trouble=""):
    return SimpleNamespace(name=name, kind="openAI", trouble=trouble, healthy=not trouble, jobs=2)


def given_phase(late=1.0, ill=False):
    clouds = [given_cloud("open"), *([given_cloud("dead", "dead")] if ill else [])]
    jobs = {
        f"{cloud.name}-{n}": Job(cloud, sent=10.0, submitted=10.0 + late * (n + 1) if cloud.healthy else None)
        for cloud in clouds
        for n in range(2)
    }
    recorded = [
        {"operation": operation, "received": 100.0 + at, "seen": seen}
        for operation, at, seen in (
            ("fine_tuning.jobs.create", 0.0, "200"),
            ("fine_tuning.jobs.list", 0.5, "200"),
            ("fine_tuning.jobs.list_events", 0.9, "429"),
            ("files.retrieve", 1.4, "200"),
            ("files.delete", 9.0, "200"),
            ("entra.token", 30.0, "200"),
        )
    ]
    calls = {cloud.name: phase.calls_of(recorded) for cloud in clouds}
    return Phase(jobs, calls, {"open": 0.5}, 40, 12.0, 150.0, 5.0, 6.0, 7.0, 3)


@pytest.mark.parametrize(
    ("moments", "seconds", "most"),
    [([], 1.0, 0), ([1.0, 1.5, 1.9, 2.0], 1.0, 3), ([1.0, 5.0], 1.0, 1), ([1.0, 1.1, 5.0, 5.1, 5.2], 1.0, 3)],
)
def test_the_busiest_second_is_any_second(moments, seconds, most):
    assert phase.busiest(moments, seconds) == most


def test_calls_are_counted_by_what_they_do():
    calls = phase.calls_of([])
    assert (calls.in_one_second, calls.refused) == (0, 0)
    calls = given_phase().calls["open"]
    assert page.kinds(calls) == {"create": 1, "list": 2, "get": 1, "delete": 1, "other": 1}
    assert (calls.in_one_second, calls.per_second, calls.refused) == (3, 0.5, 1)
    assert page.kinds(
        Calls(phase.Counter({"GetModelCustomizationJob": 2, "CreateModelCustomizationJob": 1}), 0, 0, 0)
    ) == {
        "get": 2,
        "create": 1,
    }


def test_how_late_jobs_were_because_of_others_is_a_ratio_to_the_run_without_them():
    result = page.Result(given_phase(late=1.0), given_phase(late=1.5, ill=True))
    assert (result.ratio(0.5), result.ratio(0.99)) == (1.5, 1.5)
    text = page.page(result)
    for expected in ("| open | 1.0 | 1.5 | 1.50 | 2.0 | 3.0 | 1.50 |", "0 of 2 submitted", "missed", "load average"):
        assert expected in text


def test_jobs_are_spread_over_all_connections():
    healthy, ill = connections(1000)
    assert sum(one.jobs for one in (*healthy, *ill)) == 1000
    assert {one.kind for one in healthy} == {"openAI", "azureOpenAI", "bedrock"}
    assert {one.trouble for one in ill} == {"slow", "dead"}


def test_azures_data_have_the_mark_that_azure_wants():
    assert DATA["azureOpenAI"].startswith(b"\xef\xbb\xbf")
    assert DATA["bedrock"].count(b"\n") == DATA["openAI"].count(b"\n") == 12
