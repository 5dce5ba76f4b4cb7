"""`make bench-data`: `check` beside `datasets` and `tokenizers`, one process for each run; prints Markdown tables.

Runs take turns, ours and the peer's, so that a busy machine is busy for both; of each the best counts.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import venv
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from bench.data import rows
from bench.machine import described

HERE = Path(__file__).parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "finetune-operator"
MODEL = "bench/model"


@dataclass(frozen=True)
class Best:
    """The best of some runs of one program on one file."""

    rows: int
    seconds: float
    peak_mib: float
    tokens: int | None

    @property
    def rows_per_second(self) -> float:
        """Thousands of them."""
        return self.rows / self.seconds / 1000


def main() -> int:
    """Make the files, run everybody, print the tables."""
    parser = argparse.ArgumentParser(prog="python -m bench.data", description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--token-rows", type=int, default=200_000, help="rows whose tokens are counted")
    parser.add_argument("--folder", type=Path, help="where the files are made and left; default: a temporary one")
    options = parser.parse_args()
    python = peers()
    with tempfile.TemporaryDirectory(prefix="bench-data-") as temporary:
        folder = options.folder or Path(temporary)
        model = rows.write_model(folder / "cache", MODEL)
        print(f"{described()}\n{versions(python)}\n")
        for count in options.rows:
            paths = rows.write(folder, count)
            print(f"{count:,} rows, {paths['jsonl'].stat().st_size / count:.0f} bytes each as JSON Lines\n")
            print(reading(paths, python, options.runs), flush=True)
        sample = rows.write(folder, options.token_rows)["jsonl"]
        print(f"Tokens of {options.token_rows:,} rows\n\n{counting(sample, model, python, options.runs)}")
    return 0


def peers() -> Path:
    """Python of the peers' environment, made once."""
    wanted = HERE / "peers.txt"
    folder = CACHE / f"bench-data-{sha256(wanted.read_bytes()).hexdigest()[:12]}"
    if not (folder / "done").is_file():
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([folder / "bin/python", "-m", "pip", "install", "--quiet", "-r", wanted], check=True)
        (folder / "done").touch()
    return folder / "bin/python"


def versions(python: Path) -> str:
    """Of the peers and of what we stand on."""
    code = "from importlib.metadata import version as v; print(*(f'{n} {v(n)}' for n in NAMES), sep=', ')"
    theirs = said([python, "-c", code.replace("NAMES", "('datasets', 'tokenizers', 'pyarrow')")])
    ours = said([sys.executable, "-c", code.replace("NAMES", "('msgspec', 'pyarrow', 'tokenizers')")])
    return f"Peers: {theirs}. Ours: {ours}."


def said(command: list[Any]) -> str:
    """What a program prints last."""
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return done.stdout.strip().rpartition("\n")[2]


def reading(paths: dict[str, Path], python: Path, runs: int) -> str:
    """Everything that `check` reports without a tokenizer, beside loading and dropping rows with missing values."""
    lines = [
        "| file | check, thousand rows/s | MiB | datasets, thousand rows/s | MiB | check is faster by |",
        "|" + "---|" * 6,
    ]
    for kind, path in paths.items():
        ours, theirs = in_turn(
            [sys.executable, "-m", "bench.data.ours", path, "-"],
            [python, HERE / "peers.py", "datasets", path],
            runs,
        )
        lines.append(
            f"| {kind} | {ours.rows_per_second:.0f} | {ours.peak_mib:.0f} | {theirs.rows_per_second:.0f} | "
            f"{theirs.peak_mib:.0f} | {theirs.seconds / ours.seconds:.2f} |"
        )
    return "\n".join(lines) + "\n"


def counting(path: Path, model: Path, python: Path, runs: int) -> str:
    """`check` with token counts, beside what tokenizers needs to encode the same rows in batches."""
    ours, theirs = in_turn(
        [sys.executable, "-m", "bench.data.ours", path, model],
        [python, HERE / "peers.py", "tokenizers", path, model],
        runs,
    )
    return (
        "| tokens of | thousand rows/s | tokens | MiB | of tokenizers' time |\n|---|---|---|---|---|\n"
        f"| check | {ours.rows_per_second:.0f} | {ours.tokens:,} | {ours.peak_mib:.0f} | "
        f"{ours.seconds / theirs.seconds:.2f} |\n"
        f"| tokenizers alone | {theirs.rows_per_second:.0f} | {theirs.tokens:,} | {theirs.peak_mib:.0f} | 1 |\n"
    )


def in_turn(ours: list[Any], theirs: list[Any], runs: int) -> tuple[Best, Best]:
    """Both programs, one after the other, `runs` times."""
    found = [(json.loads(said(ours)), json.loads(said(theirs))) for _ in range(runs)]
    return _best([one for one, _ in found]), _best([other for _, other in found])


def _best(runs: list[dict[str, Any]]) -> Best:
    quickest = min(runs, key=lambda run: run["seconds"])
    return Best(quickest["rows"], quickest["seconds"], max(run["peakMiB"] for run in runs), quickest.get("tokens"))


if __name__ == "__main__":
    sys.exit(main())
