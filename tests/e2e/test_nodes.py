"""One job on two nodes: JobSet's own controller makes its pods, torchrun brings them together, one is killed."""

import os
import signal
from pathlib import Path

from tests.cluster import job_set
from tests.e2e.site import Site, condition, eventually

PAIR = {
    "dataset": {"train": {"uri": "pvc://data/long.jsonl"}, "validation": {"uri": "pvc://data/validation.jsonl"}},
    "resources": {"nodes": 2},
    "hyperparameters": {
        "epochs": 4,
        "batchSize": 4,
        "maxSequenceLength": 64,
        "learningRate": 0.003,
        "checkpointSteps": 10,
    },
}
"""100 steps, of which each pod does half of the rows."""


def rank_process(job: str, rank: int) -> int:
    """A rank's process id on this machine: the node is here."""
    for environment in Path("/proc").glob("[0-9]*/environ"):
        try:
            variables = environment.read_text(errors="replace").split("\0")
        except OSError:
            continue  # it has ended meanwhile
        if f"RANK={rank}" in variables and any(f'"name":"{job}"' in variable for variable in variables):
            return int(environment.parent.name)
    raise AssertionError(f"no rank {rank} of {job} runs")


def test_two_pods_learn_as_one_and_go_on_when_one_of_them_was_killed(site: Site) -> None:
    site.write_rows("long.jsonl", 100)
    site.model("pair", deployment={"mode": "Manual"})
    known = "jobsets" in site.cluster.kubectl("get", "crd", "-o", "name")
    site.job("pair", model="pair", **PAIR)
    if not known:
        status = site.wait("job", "pair", lambda s: s.get("failure"), "to say what it lacks")
        assert status["failure"]["reason"] == "JobSetMissing"
        assert condition(status, "Stalled")["status"] == "True"
    job_set.install(site.cluster)
    site.cluster.kubectl("-n", site.name, "label", "finetunejobs", "pair", "look=again")  # it looks once a minute

    eventually(lambda: len(site.records("pair")) > 25, "epoch two", 180, lambda: site.explain("job", "pair"))
    assert len({pod["status"]["podIP"] for pod in site.pods("finetune.dev/job=pair")}) == 2
    os.kill(rank_process("pair", 1), signal.SIGKILL)
    status = site.succeeded("pair", 300)
    assert (status["provider"]["attempt"], status["provider"]["lastFailure"]["reason"]) == (2, "Interrupted")
    assert status["provider"]["lastFailure"]["exitCode"] == 128 + signal.SIGKILL
    assert [line["step"] for line in site.records("pair") if "loss" in line] == list(range(1, 101))
    assert status["modelVersion"] == 1

    pods = site.pods("finetune.dev/job=pair,finetune.dev/attempt=2")
    assert [pod["status"]["phase"] for pod in pods] == ["Succeeded", "Succeeded"]
    site.delete("job", "pair")
    eventually(lambda: not site.pods("finetune.dev/job=pair"), "the pods to go", 120)
    assert site.cluster.get("-n", site.name, "jobsets")["items"] == []
