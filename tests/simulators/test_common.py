"""The parts that all simulators share."""

import ssl
from decimal import Decimal
from http.client import RemoteDisconnected
from urllib.request import urlopen

import pytest
from openai.types import Model, ModelDeleted
from openai.types.fine_tuning.job_create_params import JobCreateParams

from tests.simulators.clock import HOUR, Clock
from tests.simulators.faults import Fault, FaultPlan
from tests.simulators.ledger import Ledger
from tests.simulators.process import running
from tests.simulators.shapes import DriftError, conform, unknown_keys


@pytest.mark.parametrize("parts", [1, 7, 60])
def test_one_advance_is_as_good_as_many(parts):
    clock = Clock(start=0)
    seen = []

    def tick() -> None:
        seen.append(clock.now)
        clock.after(50, tick)

    clock.after(50, tick)
    for _ in range(parts):
        clock.advance(420 / parts)
    assert seen == pytest.approx([50.0 * n for n in range(1, 9)])
    assert clock.now == pytest.approx(420)


def test_time_stands_still_by_itself():
    clock = Clock(start=5)
    clock.catch_up()
    assert clock.now == 5


def test_a_fault_skips_calls_and_ends():
    plan = FaultPlan()
    plan.plan(Fault(operation="jobs.*", skip=1, times=2))
    met = [
        plan.take(operation) is not None
        for operation in ("files.list", "jobs.list", "jobs.list", "jobs.get", "jobs.get")
    ]
    assert met == [False, False, True, True, False]


def test_a_meter_runs_until_it_is_stopped():
    clock = Clock()
    ledger = Ledger(clock)
    ledger.start("deployment", "hosting", Decimal("1.70"))
    clock.advance(HOUR / 2)
    assert ledger.total() == Decimal("0.85")
    assert (ledger.per_hour(), ledger.running()) == (Decimal("1.70"), ["deployment"])
    ledger.stop("deployment")
    clock.advance(HOUR)
    assert (ledger.total(), ledger.running()) == (Decimal("0.85"), [])


def test_started_hours_are_billed_whole_where_the_provider_does_so():
    clock = Clock()
    ledger = Ledger(clock)
    ledger.start("units", "throughput", Decimal(20), step_seconds=HOUR)
    clock.advance(HOUR + 1)
    assert ledger.total("units") == 40


MODEL = {"id": "m", "object": "model", "created": 1, "owned_by": "us"}
DRIFTS = {
    "unknown field": MODEL | {"colour": "red"},
    "missing field": {key: value for key, value in MODEL.items() if key != "owned_by"},
    "other type": MODEL | {"created": "1"},
    "unknown value": MODEL | {"object": "motor"},
}


@pytest.mark.parametrize("body", DRIFTS.values(), ids=DRIFTS)
def test_an_answer_that_the_sdk_does_not_know_is_a_drift(body):
    assert conform(Model, MODEL) is MODEL
    with pytest.raises(DriftError):
        conform(Model, body)
    with pytest.raises(DriftError):
        conform(ModelDeleted, MODEL)


def test_unknown_fields_of_a_request_are_found_at_any_depth():
    request = {"model": "m", "training_file": "f", "method": {"type": "dpo", "dpo": {"hyperparameters": {"gamma": 1}}}}
    assert unknown_keys(JobCreateParams, request) == ["method.dpo.hyperparameters.gamma"]


def test_a_simulator_runs_as_a_process(tmp_path):
    with running("openai", "--set", "job_limit=0", "--rate", "60", tls=tmp_path) as remote:
        assert (remote.state()["rate"], remote.state()["settings"]["job_limit"]) == (60, 0)
        remote.run(0)
        now = remote.state()["now"]
        remote.advance(HOUR)
        assert remote.state()["now"] == pytest.approx(now + HOUR)
        remote.set(job_limit=7, credit=Decimal("1.50"))
        remote.fault("models.list", outcome="cut")
        with pytest.raises(RemoteDisconnected):
            urlopen(f"{remote.url}/v1/models", context=ssl.create_default_context(cafile=tmp_path / "ca.pem"))
        assert (remote.cost(), remote.left(), remote.state()["settings"]["credit"]) == (0, [], "1.50")
        assert (remote.count("models.list"), remote.count("models.list", committed=False)) == (0, 1)
