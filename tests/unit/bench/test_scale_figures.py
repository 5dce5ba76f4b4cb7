"""What the benchmark of the operator makes of what it has recorded."""

import json
import math
import os
import subprocess
import sys

import pytest

from bench.scale import bars, figures, page, peer
from bench.scale.load import Times
from bench.scale.ours import LASTING, USER, Running, jobs, owner_of
from bench.scale.pushes import Pushed, report_of
from finetune_api.trainer import Report


@pytest.mark.parametrize(
    ("values", "part", "expected"),
    [([3.0, 1.0, 2.0], 0.5, 2.0), ([1.0], 0.99, 1.0), (list(range(1, 101)), 0.99, 99), ([1.0, 2.0], 0.0, 1.0)],
)
def test_a_percentile_is_the_value_of_the_nearest_rank(values, part, expected):
    assert figures.percentile(values, part) == expected


def test_no_values_have_no_percentile():
    assert math.isnan(figures.percentile([], 0.5))


def test_requests_are_counted_by_user_and_watches_are_left_out(tmp_path):
    def event(verb, user, resource, subresource=None):
        about = {"resource": resource, "subresource": subresource}
        return json.dumps({"verb": verb, "user": {"username": user}, "objectRef": about, "requestURI": "/x"})

    log = tmp_path / "audit.log"
    lines = [
        event("patch", USER, "jobs"),
        event("patch", USER, "finetunejobs", "status"),
        event("patch", USER, "finetunejobs", "status"),
        event("watch", USER, "jobs"),
        event("patch", "somebody-else", "jobs"),
    ]
    log.write_text("\n".join(lines) + "\n")
    assert figures.requests(log, USER) == {"patch jobs": 1, "patch finetunejobs/status": 2}


def test_cpu_time_and_memory_are_those_of_the_process():
    assert figures.cpu_seconds(os.getpid()) == pytest.approx(sum(os.times()[:2]), abs=0.5)
    assert 10 < figures.peak_mib(os.getpid()) < 100_000


def test_times_run_from_the_post_to_the_event():
    times = Times(sent={"a": 1.0, "b": 2.0}, job_created={"a": 4.0, "unknown": 5.0})
    assert times.until(times.job_created) == [3.0]


def test_every_job_has_a_name_of_its_own_and_its_batch_job_is_found_by_its_owner():
    assert len({job["metadata"]["name"] for job in jobs(25)}) == 25
    assert owner_of({"metadata": {"ownerReferences": [{"kind": "FineTuneJob", "name": "job-3"}]}}) == "job-3"
    assert owner_of({"metadata": {}}) is None


def test_the_page_says_on_which_machine_with_which_versions_and_how_busy_it_was(monkeypatch):
    monkeypatch.setattr(os, "getloadavg", lambda: (7.5, 0.1, 0.0))
    row = page.Row(
        jobs=1000,
        created_p50=1.25,
        created_p99=2.0,
        all_complete=30.0,
        requests_per_job=3.5,
        peak_mib=150.0,
        cpu_seconds=10.0,
        api_cpu_seconds=55.5,
        restart=4.0,
        edit_p50=0.02,
        edit_p99=0.05,
        others=0.5,
        failed=0,
    )
    pushed = Pushed(taken=[1.0, 2.0], told_to_wait=3, shown=4.0, probes=[0.01, 0.2])
    text = page.page([page.table([row]), page.pushes(1000, pushed)])
    for expected in (
        "load average 7.5",
        "| 1,000 | 1.2 | 2.0 | 30.0 | 3.50 | 150 | 10.0 | 55.5 | 4.0 | 20 | 50 | 0.5 |",
        "KWOK v",
    ):
        assert expected in text
    assert "| 1,000 | 1.0 | 2.0 | 3 | 4.0 | 10 | 200 |" in text


def test_a_trainers_report_is_the_one_that_its_pod_may_make():
    job = {"namespace": "bench", "name": "job-1", "uid": "u", "attempt": 1, "spec": {}}
    container = {"name": "trainer", "env": [{"name": "FINETUNE_JOB", "value": json.dumps(job)}]}
    report = Report.model_validate(report_of({"spec": {"containers": [container]}}))
    assert (report.namespace, report.name, report.uid, report.attempt) == ("bench", "job-1", "u", 1)
    assert report.progress.step == 50


def test_jobs_of_the_lasting_connection_name_it():
    assert {job["spec"]["connectionRef"]["name"] for job in jobs(3, LASTING)} == {LASTING}


def test_there_is_no_waiting_for_an_operator_that_has_ended(tmp_path):
    log = tmp_path / "operator.log"
    log.write_text("another replica leads now")
    process = subprocess.Popen([sys.executable, "-c", "raise SystemExit(1)"])
    process.wait(timeout=30)
    with pytest.raises(RuntimeError, match="another replica leads now"):
        Running(process, log, 1, 2).check()


def given_row(count=1000, **fields):
    good = {
        "jobs": count,
        "created_p50": 5.0 * count / 1000,
        "created_p99": 10.0 * count / 1000,
        "all_complete": 30.0 * count / 1000,
        "requests_per_job": 3.5,
        "peak_mib": 150.0,
        "cpu_seconds": 10.0 * count / 1000,
        "api_cpu_seconds": 50.0 * count / 1000,
        "restart": 2.0 * count / 1000,
        "edit_p50": 0.02,
        "edit_p99": 0.05,
        "others": 0.0,
        "failed": 0,
    }
    return page.Row(**good | fields)


def given_peer(count=1000):
    return page.Run(
        jobs=count, created_p50=50.0 * count / 1000, created_p99=100.0 * count / 1000, all_complete=60.0 * count / 1000,
        requests_per_job=7.0, peak_mib=200.0, cpu_seconds=16.0, api_cpu_seconds=65.0, others=0.0, failed=0,
    )  # fmt: skip


MISSES = {
    "apply → Job p50 / peer's": {"created_p50": 10.1},
    "apply → Job p99 / peer's": {"created_p99": 20.1},
    "all Complete / peer's": {"all_complete": 30.1},
    "peak memory / peer's": {"peak_mib": 201.0},
    "requests per job": {"requests_per_job": 4.01},
    "cold restart": {"restart": 15.1},
    "an edit, p99": {"edit_p99": 0.101},
}


@pytest.mark.parametrize("what", MISSES)
def test_a_bar_that_is_missed_is_called_so_and_no_other(what):
    assert [bar.what for bar in bars.judged([given_row()], [given_peer()]) if not bar.met] == []
    missed = [bar for bar in bars.judged([given_row(**MISSES[what])], [given_peer()]) if not bar.met]
    assert [bar.what for bar in missed] == [what]
    assert "| missed |" in bars.table(missed)


def test_more_is_asked_of_many_jobs_and_memory_has_a_limit_of_its_own_there():
    many = bars.judged([given_row(5000, peak_mib=191.0, created_p50=30.1)], [given_peer(5000)])
    assert {bar.what for bar in many if not bar.met} == {"apply → Job p50 / peer's", "peak memory"}
    [memory] = [bar for bar in bars.judged([given_row(10_000, peak_mib=286.0)], []) if bar.what == "peak memory"]
    assert (memory.met, memory.limit) == (True, 300.0)


def test_a_time_that_grows_faster_than_the_number_of_jobs_is_found():
    rows = [given_row(5000, created_p99=60.0, peak_mib=100.0), given_row()]
    missed = [bar for bar in bars.judged(rows, []) if not bar.met]
    assert [(bar.jobs, bar.what.partition(",")[0], bar.figure) for bar in missed] == [(5000, "apply → Job p99", 1.2)]


def test_the_page_has_the_peer_with_its_versions():
    text = page.peers([given_peer()])
    assert "Kubeflow Trainer v2.0.0 with JobSet v0.8.2" in text
    assert "| 1,000 | 50.0 | 100.0 | 60.0 | 7.00 | 200 | 16.0 | 65.0 | 0.0 |" in text


def test_a_trainjobs_batch_job_is_found_by_its_jobset():
    assert peer.owner_of({"metadata": {"ownerReferences": [{"kind": "JobSet", "name": "job-3"}]}}) == "job-3"
    assert len({job["metadata"]["name"] for job in peer.jobs(25)}) == 25
