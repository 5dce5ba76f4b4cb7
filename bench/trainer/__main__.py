"""`make bench-trainer`: the trainer beside TRL, transformers, LLaMA-Factory and Unsloth; bench/results/trainer.md.

Contenders take turns, each in a process of its own; of several runs the best counts. What was measured is kept as
JSON Lines beside the page; what was measured on another machine stands on it too.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from bench.machine import described
from bench.trainer.contend import MARK
from bench.trainer.environments import NotInstalledError, python_of
from bench.trainer.page import Result, page, setting_of
from bench.trainer.races import AGREEMENT, Race, named, races
from bench.trainer.work import Task

RESULTS = Path(__file__).parents[1] / "results"


def run(task: Task) -> Result:
    """One contender's result, or why there is none."""
    about = {"contender": named(task), "setting": setting_of(task), "batch": task.batch, "machine": described()}
    try:
        found = contend(task)
    except (NotInstalledError, subprocess.CalledProcessError) as error:
        found = {"refused": _reason(error)}
    sys.stderr.write(f"{about['setting']}: {about['contender']}: {found.get('refused', 'done')}\n")
    return about | found


def contend(task: Task) -> Result:
    """What a contender measures, in the Python of its environment.

    Raises:
        NotInstalledError: it has none.
        CalledProcessError: it failed.
    """
    command: list[Any] = [python_of(task.program), "-m", "bench.trainer.contend", json.dumps(asdict(task))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    result: Result = json.loads(done.stdout.rpartition(MARK)[2])
    return result


def _reason(error: NotInstalledError | subprocess.CalledProcessError) -> str:
    said = error.stderr if isinstance(error, subprocess.CalledProcessError) else str(error)
    return f"{(said or 'it said nothing').strip().rpartition(chr(10))[2][:300]}"


def raced(race: Race, runs: int) -> Iterator[Result]:
    """The best run of each contender."""
    found = sorted((run(task) for _ in range(runs) for task in race.tasks), key=lambda one: str(one["contender"]))
    for _, same in groupby(found, key=lambda one: one["contender"]):
        yield max(same, key=lambda one: float(one.get("tokens_per_second", 0)))


def quick(race: Race) -> Race:
    """The same contenders with half of the rows and as few steps as there can be."""
    return race if race is AGREEMENT else replace(race, task=replace(race.task, batch=race.task.batch // 2, seconds=0))


def main() -> None:
    """Race, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--device", choices=["cpu", "cuda", "none"], default="cpu", help="none: only write the page anew"
    )
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="one run of two timed steps, of half as many rows")
    args = parser.parse_args()
    if args.device != "none":
        chosen = [quick(race) if args.quick else race for race in races(args.device)]
        record, lines = RESULTS / f"trainer-{args.device}.jsonl", ""
        for race in chosen:
            lines += "".join(f"{json.dumps(one)}\n" for one in raced(race, 1 if args.quick else args.runs))
            record.write_text(lines, encoding="utf-8")
    kept = [
        json.loads(line) for path in sorted(RESULTS.glob("trainer-*.jsonl")) for line in path.read_text().splitlines()
    ]
    (RESULTS / "trainer.md").write_text(page(kept), encoding="utf-8")


if __name__ == "__main__":
    main()
