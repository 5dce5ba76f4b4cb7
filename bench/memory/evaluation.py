"""Peak memory of an evaluation by the length of its test set (`make bench-evaluation`).

All answers are already saved, as in a run that was interrupted at its end: no model is loaded, and what is left is
reading, comparing, records and report. Each length has its own process.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench import machine
from bench.memory.shapes import job_of

_PAGE = """# Memory of an evaluation by the length of its test set

Written by `make bench-evaluation`. Answers of both contestants are there already: no model is loaded, and what is left
is reading, comparing, records and report.

{machine}.

| rows of dataset.test | file, MiB | peak, MiB | seconds |
|--:|--:|--:|--:|
{lines}
"""


def main() -> None:
    """Print a table of all lengths, or one line of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--write", type=Path, help="the page")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one is not None:
        one(asked.one)
        return
    about = machine.described()
    page = _PAGE.format(machine=about, lines="\n".join(map(_in_its_process, asked.rows)))
    sys.stdout.write(page)
    if asked.write:
        asked.write.write_text(page, encoding="utf-8")


def _in_its_process(rows: int) -> str:
    child = [sys.executable, "-m", "bench.memory.evaluation", "--one", str(rows)]
    done = subprocess.run(child, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.strip().splitlines()[-1]


def one(rows: int) -> None:
    """Measure one line of it."""
    from finetune_api.trainer import MeasureJob
    from finetune_trainer.attempt.interruption import Interruption
    from finetune_trainer.attempt.report import Reporter
    from finetune_trainer.evaluation.at_provider import AskingProvider
    from finetune_trainer.evaluation.endpoint import Way
    from finetune_trainer.evaluation.material import collected
    from finetune_trainer.measure import leave_report

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        size = _write(folder / "test.jsonl", rows)
        job = MeasureJob.model_validate(_described(folder))
        began = time.monotonic()
        asked = collected(job.spec, job.dataset, lambda split: _rows(job, split), lambda texts: list(map(len, texts)))
        assert asked is not None
        asking = AskingProvider(
            job, folder, material=asked, way=Way(), reporter=Reporter(job), interruption=Interruption()
        )
        for who in ("tuned", "zeroShot"):
            _answered(asking._kept(who, job.uid, job.attempt), rows, wrong=3 if who == "tuned" else 2)  # noqa: SLF001 - answers that a killed pod would have left
        contest = asking.measure()
        assert contest.result.verdict == "Better", contest.result
        leave_report(job, folder, contest)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"| {rows:,} | {size / 2**20:.0f} | {peak:.0f} | {time.monotonic() - began:.0f} |")


def _rows(job: Any, split: Any) -> Any:
    from finetune_trainer.data import load_rows

    return load_rows(job.spec.data, split, allow_local=True)


def _write(path: Path, rows: int) -> int:
    with path.open("w", encoding="utf-8") as file:
        for row in range(rows):
            prompt = f"What does customer {row} say about the {'very ' * (row % 9)}new product? {'It is good. ' * 10}"
            file.write(json.dumps({"prompt": prompt, "completion": f"the customer says number {row % 1000}"}) + "\n")
    return path.stat().st_size


def _answered(kept: Any, rows: int, *, wrong: int) -> None:
    """Save answers of which one in `wrong` is wrong."""
    from finetune_trainer.evaluation.kept import Answer

    for start in range(0, rows, 1000):
        kept.add(
            Answer(row, "I do not know" if row % wrong == 0 else f"the customer says number {row % 1000}", 40)
            for row in range(start, min(start + 1000, rows))
        )


def _described(folder: Path) -> dict[str, Any]:
    spec = job_of(folder, "LoRA").spec.wire()
    spec["dataset"] |= {"test": {"uri": (folder / "test.jsonl").as_uri()}}
    spec["evaluation"] = {"metrics": ["exactMatch", "tokenF1"], "baselines": [{"zeroShot": {}}]}
    about = {"namespace": "bench", "name": "memory", "uid": "bench", "attempt": 1, "answersURL": "https://operator"}
    return about | {"spec": spec, "dataset": {"valid": True, "reason": "Valid", "message": "ok"}}


if __name__ == "__main__":
    main()
