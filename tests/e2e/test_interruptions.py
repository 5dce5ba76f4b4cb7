"""Jobs that are interrupted: suspended, killed, evicted, out of memory, deleted. Nothing is lost or doubled."""

import json
import os
import signal
from pathlib import Path

import pytest

from finetune_api.manifest import Manifest
from tests.e2e.site import Site, condition, eventually

LONG = {
    "dataset": {
        "train": {"uri": "pvc://data/long.jsonl"},
        "validation": {"uri": "pvc://data/validation.jsonl"},
    },
    "hyperparameters": {
        "epochs": 3,
        "batchSize": 4,
        "maxSequenceLength": 64,
        "learningRate": 0.003,
        "checkpointSteps": 20,
        "precision": "Float32",
    },
}
"""Long enough to be caught in the middle: 150 steps of some tens of milliseconds."""

ENDLESS = {**LONG, "hyperparameters": {**LONG["hyperparameters"], "epochs": 100}}
"""For the job that is not to end by itself, however late its interruptions come."""


def wait_for_epoch_two(site: Site, job: str) -> None:
    """Until the trainer is past its first epoch, read from its own record: status may be seconds behind."""

    def look() -> bool:
        records = site.records(job)
        return bool(records) and 1.0 < records[-1]["epoch"] < 2.5

    eventually(look, f"{job} reaching epoch two", 240, lambda: site.explain("job", job))


def trainer_process(job: str) -> int | None:
    """The trainer's process id on this machine: the node is here."""
    for environment in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f'"name":"{job}"' in environment.read_text(errors="replace"):
                return int(environment.parent.name)
        except OSError:
            continue  # it has ended meanwhile
    return None


@pytest.fixture(scope="module", autouse=True)
def undisturbed(site: Site) -> None:
    """The run that the interrupted ones are compared with, and one that fails by itself: beside the first of them."""
    site.write_rows("long.jsonl", 200)
    for model in ("twins", "suspended"):
        site.model(model, deployment={"mode": "Manual"})
    site.job("undisturbed", model="twins", ttlSecondsAfterFinished=3600, **LONG)
    site.job("hungry", connectionRef={"name": "hasty"}, resources={"memory": "150Mi"})


def same_result(one: Manifest, other: Manifest) -> bool:
    """Equal losses to the last digit, and the same number of steps."""
    return all(one[loss] == other[loss] for loss in ("trainLoss", "evalLoss")) and (
        one["result"]["steps"] == other["result"]["steps"]
    )


def test_a_trainer_killed_in_epoch_two_goes_on_and_ends_with_the_same_loss(site: Site) -> None:
    site.job("killed", model="twins", **LONG)
    wait_for_epoch_two(site, "killed")
    pid = trainer_process("killed")
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    status = site.succeeded("killed", 240)
    assert status["provider"]["attempt"] == 2
    assert status["provider"]["retries"] == 1
    assert status["provider"]["lastFailure"]["reason"] == "Interrupted"
    assert same_result(status, site.succeeded("undisturbed", 240))


def test_a_suspended_job_keeps_its_checkpoint_and_goes_on_from_it(site: Site) -> None:
    site.job("suspended", model="suspended", **LONG)
    checkpoints = f"{site.name}/suspended/suspended-*/checkpoints/step-*"
    # As soon as there is one: what is left to train is the time in which the suspension has to get through.
    eventually(
        lambda: list(site.models.glob(checkpoints)), "a checkpoint", 240, lambda: site.explain("job", "suspended")
    )
    site.patch("job", "suspended", {"suspend": True})
    eventually(lambda: not site.pods("finetune.dev/job=suspended"), "the pod to end", 120)
    status = site.wait("job", "suspended", lambda s: condition(s, "Suspended").get("status") == "True", "to rest")
    assert status["phase"] == "Suspended"
    assert list(site.models.glob(checkpoints))
    site.patch("job", "suspended", {"suspend": False})
    status = site.succeeded("suspended", 240)
    assert status["provider"]["retries"] == 0
    assert condition(status, "Suspended")["status"] == "False"
    assert same_result(status, site.succeeded("undisturbed", 240))


def test_an_evicted_trainer_is_started_again_and_goes_with_its_job(site: Site) -> None:
    site.job("evicted", **ENDLESS)
    site.wait("job", "evicted", lambda s: s.get("progress", {}).get("step", 0) > 0, "to train", 180)
    (pod,) = site.pods("finetune.dev/job=evicted")
    name = pod["metadata"]["name"]
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": site.name}}
    path = f"/api/v1/namespaces/{site.name}/pods/{name}/eviction"
    site.cluster.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(eviction))
    status = site.wait("job", "evicted", lambda s: s.get("provider", {}).get("retries", 0) > 0, "to be retried", 120)
    assert status["provider"]["lastFailure"]["reason"] == "Evicted"
    counted = {name: status["provider"].get(name, 0) for name in ("interruptions", "fruitlessInterruptions")}
    assert counted == {"interruptions": 1, "fruitlessInterruptions": 0}, "it left a checkpoint: no retry is used up"
    assert status["provider"]["savedWork"] == status["progress"]["savedStep"] > 0

    again = "finetune.dev/job=evicted,finetune.dev/attempt=2"
    eventually(lambda: [pod for pod in site.pods(again) if pod["status"]["phase"] == "Running"], "to run again", 120)
    # While a trainer imports torch it may miss a signal: Python drops what handlers raise in some callbacks.
    step = status["progress"]["step"]
    site.wait("job", "evicted", lambda s: s.get("progress", {}).get("step", 0) > step, "to train on", 180)
    site.delete("job", "evicted")
    eventually(lambda: not site.pods("finetune.dev/job=evicted"), "the pods to go", 120)
    assert site.cluster.get("-n", site.name, "jobs", "-l", "finetune.dev/job=evicted")["items"] == []


def test_a_trainer_without_memory_says_so_and_ends_at_the_retry_limit(site: Site) -> None:
    failure = site.failed("hungry", 180)
    assert failure["reason"] == "OutOfMemory"
    assert "given up after 1 retry" in failure["message"]
    assert "memory" in failure["nextStep"]
    assert site.status("job", "hungry")["provider"]["attempt"] == 2


def test_two_jobs_at_once_make_two_versions_of_one_model(site: Site) -> None:
    one, other = (site.succeeded(name, 240) for name in ("killed", "undisturbed"))
    assert one["startTime"] < other["completionTime"], "they were under way at once"
    assert {one["modelVersion"], other["modelVersion"]} == {1, 2}
    model = site.status("model", "twins")
    assert [version["version"] for version in model["versions"]] == [1, 2]
    assert {version["job"] for version in model["versions"]} == {"killed", "undisturbed"}


def test_a_finished_job_goes_when_its_time_is_over_and_its_version_stays(site: Site) -> None:
    site.succeeded("undisturbed", 240)
    site.patch("job", "undisturbed", {"ttlSecondsAfterFinished": 1})
    path = f"/apis/finetune.dev/v1alpha1/namespaces/{site.name}/finetunejobs/undisturbed"
    eventually(lambda: site.cluster.read(path) is None, "the job to go", 120)
    assert len(site.status("model", "twins")["versions"]) == 2
