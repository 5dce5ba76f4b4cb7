"""`make bench-trainer`: the trainer beside TRL, transformers, LLaMA-Factory and Unsloth; bench/results/trainer.md.

Contenders take turns, each in its own process; the best of several runs counts. Results are saved as JSON Lines beside
the page, which also shows those of other machines.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from bench.machine import described
from bench.trainer.contend import MARK
from bench.trainer.environments import NotInstalledError, python_of
from bench.trainer.page import Result, page, setting_of
from bench.trainer.races import AGREEMENT, Race, named, races
from bench.trainer.work import Task

RESULTS = Path(__file__).parents[1] / "results"
_QUICK = 7
"""A quick race has only this many contenders, the first of its list."""


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
    """Run a contender in the Python of its environment.

    Raises:
        NotInstalledError: it has no environment.
        CalledProcessError: it failed.
    """
    command: list[Any] = [python_of(task.program), "-m", "bench.trainer.contend", json.dumps(asdict(task))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    result: Result = json.loads(done.stdout.rpartition(MARK)[2])
    return result


def _reason(error: NotInstalledError | subprocess.CalledProcessError) -> str:
    said = error.stderr if isinstance(error, subprocess.CalledProcessError) else str(error)
    return f"{(said or 'it said nothing').strip().rpartition(chr(10))[2][:300]}"


def best(found: Iterable[Result]) -> list[Result]:
    """The best run of each contender in each setting, in the original order."""
    by_name: dict[tuple[str, str], Result] = {}
    for one in found:
        key = str(one["setting"]), str(one["contender"])
        by_name[key] = max(by_name.get(key, one), one, key=lambda one: float(one.get("tokens_per_second", 0)))
    return list(by_name.values())


def quick(race: Race) -> Race:
    """The first contenders of a race, with a quarter of the rows and the minimum of steps."""
    if race is AGREEMENT:
        return race
    task = replace(race.task, batch=race.task.batch // 4, seconds=0)
    return replace(race, task=task, contenders=race.contenders[:_QUICK])


def recorded(path: Path) -> list[Result]:
    """Results saved before."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []


def race_all(chosen: list[Race], runs: int, record: Path) -> None:
    """Save each result at once; earlier results are kept unless they are raced again."""
    anew = {setting_of(race.task) for race in chosen}
    kept = [one for one in recorded(record) if one["setting"] not in anew]
    found: list[Result] = []
    for task in (task for race in chosen for _ in range(runs) for task in race.tasks):
        found.append(run(task))
        lines = (f"{json.dumps(one)}\n" for one in [*kept, *best(found)])
        record.write_text("".join(lines), encoding="utf-8")


def main() -> None:
    """Race, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--device", choices=["cpu", "cuda", "none"], default="cpu", help="none: only write the page anew"
    )
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--shape", help="only races of this shape; what is known of the others stays")
    parser.add_argument("--quick", action="store_true", help="one run of two timed steps, few rows, fewer contenders")
    args = parser.parse_args()
    if args.device != "none":
        of_shape = [race for race in races(args.device) if args.shape in {None, race.task.shape}]
        chosen = [quick(race) if args.quick else race for race in of_shape]
        race_all(chosen, 1 if args.quick else args.runs, RESULTS / f"trainer-{args.device}.jsonl")
    kept = [one for path in sorted(RESULTS.glob("trainer-*.jsonl")) for one in recorded(path)]
    (RESULTS / "trainer.md").write_text(page(kept), encoding="utf-8")


if __name__ == "__main__":
    main()
