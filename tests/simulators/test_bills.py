"""Whatever happens, nothing is billed that is not there, and what is there ends as its provider says."""

from collections import Counter
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.simulators.azure import AzureSettings, AzureSimulator
from tests.simulators.clock import DAY, HOUR
from tests.simulators.http import ApiError
from tests.simulators.openai import Failure, OpenAISettings, OpenAISimulator
from tests.simulators.openai.jobs import ENDED, Job

SKUS = ("Standard", "GlobalStandard", "DeveloperTier", "ProvisionedManaged")
NAMES = ("first", "second")
BASE = "gpt-4.1-mini-2025-04-14"
TUNED = f"{BASE}.ft-0123456789abcdef0123456789abcdef"
"""Of all models these alone are deployed with each of the SKUs."""
STEPS: list[tuple[Any, ...]] = [
    *(("put", name, sku) for name in NAMES for sku in SKUS),
    *([("advance", 600.0)] * 8),  # as long as an operation takes
    *(("advance", seconds) for seconds in (60.0, HOUR, 3 * DAY, 16 * DAY)),
    *((verb, name) for name in NAMES for verb in ("use", "delete")),
    ("fail",),
]
DEPLOYMENT_STEPS = st.lists(st.sampled_from(STEPS), min_size=10, max_size=40)


def deployment(sku: str) -> dict[str, Any]:
    model = {"format": "OpenAI", "name": TUNED, "version": "1"}
    return {"sku": {"name": sku, "capacity": 2}, "properties": {"model": model}}


def take(simulator: AzureSimulator, step: tuple[Any, ...]) -> None:
    match step:
        case ("put", name, sku):
            simulator.deployments.put(name, deployment(sku), simulator.models)
        case ("delete", name):
            simulator.deployments.delete(name)
        case ("use", name):
            simulator.deployments.use(name)
        case ("fail",):
            simulator.set(fail_next_deployment="Internal error.")
        case ("advance", seconds):
            simulator.advance(seconds)


def refusal(simulator: AzureSimulator, step: tuple[Any, ...]) -> str | None:
    try:
        take(simulator, step)
    except ApiError as error:
        return error.code
    return None


@settings(deadline=None, max_examples=100)
@given(DEPLOYMENT_STEPS)
def test_only_deployments_that_are_there_are_billed_and_idle_ones_end(steps):
    simulator = AzureSimulator(AzureSettings())
    simulator.models.add(TUNED, BASE, {})
    paid = simulator.cost()
    for step in steps:
        assert refusal(simulator, step) in {None, "RequestConflict", "DeploymentNotFound"}
        there = simulator.deployments.found
        assert set(simulator.ledger.running()) <= {name for name, found in there.items() if found.serving}
        free = {name for name, found in there.items() if found.sku == "developertier" and found.state == "Succeeded"}
        assert not free & set(simulator.ledger.running())
        assert simulator.cost() >= paid
        paid = simulator.cost()
    simulator.advance(40 * DAY)
    assert {found.state for found in simulator.deployments.found.values()} <= {"Failed"}
    assert simulator.ledger.running() == []
    simulator.close()


JOB_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("create")),
        st.tuples(st.sampled_from(["cancel", "pause", "resume"]), st.integers(0, 5)),
        st.tuples(st.just("fail")),
        st.tuples(st.just("advance"), st.sampled_from([1.0, 7.0, 60.0, 200.0, HOUR])),
    ),
    max_size=30,
)
ALLOWED = {"cancel": lambda state: state not in ENDED, "pause": lambda state: state == "running",
           "resume": lambda state: state == "paused"}  # fmt: skip


def make(simulator: OpenAISimulator, file_id: str) -> Job:
    number = len(simulator.jobs.jobs)
    request = {"model": "gpt-4o-mini", "training_file": file_id}
    job = Job(f"ftjob-{number:08}", request, "gpt-4o-mini-2024-07-18", simulator.clock.now, seed=1)
    simulator.jobs.jobs[job.id] = job
    simulator.training.begin(job)
    return job


@settings(deadline=None, max_examples=100)
@given(JOB_STEPS, st.integers(1, 3))
def test_jobs_take_turns_end_and_are_billed_once(steps, places):
    simulator = OpenAISimulator(OpenAISettings(running_limit=places))
    row = b'{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n'
    file = simulator.files.keep(row * 10, "train.jsonl", "fine-tune").id
    jobs: list[Job] = []
    for step in steps:
        match step:
            case ("create",):
                jobs.append(make(simulator, file))
            case ("fail",):
                simulator.set(fail_next_job=Failure(after_seconds=5))
            case ("advance", seconds):
                simulator.advance(seconds)
            case (verb, number) if number < len(jobs) and ALLOWED[verb](jobs[number].status):
                getattr(simulator.training, verb)(jobs[number])
        assert Counter(job.status for job in jobs)["running"] <= places
    for job in jobs:
        if job.status in {"paused", "pausing"}:
            simulator.training.cancel(job)
    simulator.advance(DAY)
    assert {job.status for job in jobs} <= ENDED
    bills = Counter(line.resource for line in simulator.ledger.lines())
    assert all(count == 1 for count in bills.values())
    assert {job.id for job in jobs if job.status == "succeeded"} <= bills.keys()
    assert not {job.id for job in jobs if job.status == "failed"} & bills.keys()
    simulator.close()
