"""Jobs come, succeed, fail, are deleted in the middle, and go, round after round: the operator stays as it was.

For some seconds here, for as long as one likes by `make soak MINUTES=60`, which also writes the figures down.
"""

import asyncio
import os
import time
from collections.abc import Iterable
from dataclasses import astuple, dataclass
from pathlib import Path
from statistics import median

import pytest

from bench.machine import described
from finetune_operator.runtime.connection import pool_size
from finetune_operator.runtime.kube import FINE_TUNE_JOBS, FINE_TUNED_MODELS, MODEL_DEPLOYMENTS
from finetune_operator.runtime.settings import Settings
from tests.chaos import operators
from tests.chaos.conftest import Outcome
from tests.chaos.operators import ROOT, Operator
from tests.chaos.site import Site
from tests.chaos.stage import Play, Plays, Stage

JOBS_PER_ROUND = 12
WARM_UP_ROUNDS = 8
ROUNDS = 14
"""Of the short soak; the first ones fill caches and the allocator's pools."""
REST_SECONDS = 45
"""The pool of connections looks every 15 seconds for those that nobody has used for 15 seconds; and some, for a machine
that is busy."""
PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Sample:
    """The operator's process after a round."""

    seconds: float
    jobs: int
    rss_mib: float
    files: int
    """Open files, connections among them."""
    threads: int


def sample(operator: Operator, began: float, jobs: int) -> Sample:
    process = Path("/proc") / str(operator.pid)
    return Sample(
        seconds=time.monotonic() - began,
        jobs=jobs,
        rss_mib=int((process / "statm").read_text().split()[1]) * PAGE / 2**20,
        files=len(list((process / "fd").iterdir())),
        threads=len(list((process / "task").iterdir())),
    )


async def one_job(site: Site, name: str, number: int) -> None:
    """A third succeeds, a third fails for good, a third is deleted while it runs."""
    await site.job(name, modelRef={"name": f"model-{number % 4}"})
    pod = await site.trainer(job=name)
    if number % 3 == 0:
        await site.phase("Validating", name)
        await site.ends(pod, message=await site.result(name, 1))
        await site.phase("Succeeded", name)
    elif number % 3 == 1:
        await site.ends(pod, 1, message="Segmentation fault")
        await site.phase("Failed", name)


async def one_round(site: Site, round_number: int) -> None:
    """Everything of a round is gone at its end, models and their deployments too."""
    names = [f"job-{round_number}-{number}" for number in range(JOBS_PER_ROUND)]
    await asyncio.gather(*(one_job(site, name, number) for number, name in enumerate(names)))
    for resource in (FINE_TUNE_JOBS, FINE_TUNED_MODELS, MODEL_DEPLOYMENTS):
        for found in await site.kube.list(resource, site.name):
            await site.kube.delete(resource, found["metadata"]["name"], site.name)
    await site.no_jobs()


async def at_rest(operator: Operator, began: float, samples: list[Sample]) -> Sample:
    """Once the operator has closed what a burst had opened and nobody uses; at the latest after `REST_SECONDS`."""
    as_before, latest = most_files(halves(samples)[0]), time.monotonic() + REST_SECONDS
    while True:
        now = sample(operator, began, samples[-1].jobs)
        if now.files <= as_before or time.monotonic() > latest:
            return now
        await asyncio.sleep(0.2)


def soak(minutes: float) -> Play:
    async def play(stage: Stage) -> list[Sample]:
        """The samples of `ROUNDS` rounds, or as many as the minutes have room for, and one of the rest after them."""
        settings = operators.environment(stage.site.name, stage.cluster.kubeconfig)
        operator = operators.fork(settings, stage.folder / "log")
        began, samples = time.monotonic(), list[Sample]()
        try:
            while len(samples) < ROUNDS or time.monotonic() - began < minutes * 60:
                await one_round(stage.site, len(samples))
                samples.append(sample(operator, began, (len(samples) + 1) * JOBS_PER_ROUND))
            samples.append(await at_rest(operator, began, samples))
        finally:
            await operator.kill()
        return samples

    return play


MINUTES = float(os.environ.get("SOAK_MINUTES", "0"))
PLAYS = Plays(calm={"soak": soak(MINUTES)})
RESULTS = ROOT / "bench/results/soak.md"


def halves(samples: list[Sample]) -> tuple[list[Sample], list[Sample]]:
    """Those after the warm-up, the earlier and the later half."""
    warm = samples[WARM_UP_ROUNDS:]
    return warm[: len(warm) // 2], warm[len(warm) // 2 :]


def most_files(samples: list[Sample]) -> int:
    return max(one.files for one in samples)


@pytest.mark.parametrize("play", ["soak"])
def test_memory_files_and_threads_stay_as_they_were(outcome: Outcome, play: str) -> None:
    samples: list[Sample] = outcome(play)
    if MINUTES:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(report(samples))
    earlier, later = halves(samples)
    # How many connections a burst needs is the machine's affair, and they wait for a next one: only at rest do they say
    # whether one was forgotten.
    assert later[-1].files <= most_files(earlier) + 2, report(samples)
    assert most_files(later) <= min(one.files for one in samples) + pool_size(Settings().workers), report(samples)
    assert max(one.threads for one in later) <= max(one.threads for one in earlier) + 1, report(samples)
    # Per job, so that an hour is held to the same as ten seconds; the constant is one arena of the allocator.
    more_jobs = later[-1].jobs - earlier[0].jobs
    growth = median(one.rss_mib for one in later) - median(one.rss_mib for one in earlier)
    assert growth < 1 + more_jobs * 0.5 / 1024, report(samples)


def report(samples: list[Sample]) -> str:
    """The figures as Markdown, thinned to some twenty lines; the last one is of the rest."""
    every = max(1, len(samples) // 20)
    rows = [*samples[:-1:every], samples[-1]]
    lines: Iterable[str] = (
        f"| {seconds:.0f} | {jobs} | {rss:.1f} | {files} | {threads} |"
        for seconds, jobs, rss, files, threads in map(astuple, rows)
    )
    return "\n".join(
        [
            "# The operator under churn",
            "",
            f"`make soak MINUTES={MINUTES:g}`: rounds of {JOBS_PER_ROUND} jobs. A third succeeds, a third fails,",
            "a third is deleted while it runs; then all of it is deleted, models and deployments too.",
            "The operator's process after each round, and at rest after the last one:",
            "",
            described(),
            "",
            "| seconds | jobs so far | resident memory, MiB | open files | threads |",
            "|---:|---:|---:|---:|---:|",
            *lines,
            "",
        ]
    )
