"""`make bench-cloud`: N FineTuneJobs at providers outside of the cluster at once. Writes Markdown."""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

from bench import signals
from bench.cloud import page, phase
from bench.cloud.clouds import Wanted
from bench.cloud.phase import Phase, Plan
from bench.scale import ours, world

TRAINING_SECONDS = 60.0
"""Three polling intervals."""


def main() -> int:
    """Do both runs; the exit code says whether the limit is met."""
    parser = argparse.ArgumentParser(prog="python -m bench.cloud", description=__doc__)
    parser.add_argument("--jobs", type=int, default=1000, help="of all connections together, at least 8")
    parser.add_argument("--write", type=Path, help="where the page is written; default: printed")
    options = parser.parse_args()
    healthy, ill = connections(options.jobs)
    alone = measure("alone", healthy)
    result = page.Result(alone, measure("beside", [*healthy, *ill]))
    text = page.page(result)
    if options.write:
        options.write.parent.mkdir(parents=True, exist_ok=True)
        options.write.write_text(text)
    print(text)
    return 0 if max(result.ratio(0.5), result.ratio(0.99)) <= page.BAR else 1


def connections(jobs: int) -> tuple[list[Wanted], list[Wanted]]:
    """Three quarters of the jobs at working providers, the rest at a slow one and a dead one."""
    eighth = jobs // 8
    healthy = jobs - 2 * eighth
    third = healthy // 3
    well = [
        Wanted("open", "openAI", healthy - 2 * third),
        Wanted("azure", "azureOpenAI", third),
        Wanted("bedrock", "bedrock", third),
    ]
    return well, [Wanted("slow", "openAI", eighth, "slow"), Wanted("dead", "openAI", eighth, "dead")]


def measure(name: str, wanted: list[Wanted]) -> Phase:
    """One run on its own control plane."""
    jobs = sum(one.jobs for one in wanted)
    plan = Plan(name, wanted, TRAINING_SECONDS, patience=300.0 + 3 * jobs)
    with (
        tempfile.TemporaryDirectory(prefix="bench-cloud-") as folder,
        world.api_alone(f"cloud-{os.getpid()}", Path(folder)) as made,
    ):
        ours.install_chart(made)
        phase.make_models(made, plan)
        return phase.play(made, Path(folder) / "run", plan)


if __name__ == "__main__":
    with signals.ended_in_order():
        raise SystemExit(main())
