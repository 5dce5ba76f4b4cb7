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
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from bench.data import rows
from bench.machine import described

HERE = Path(__file__).parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "finetune-operator"
MODEL = "bench/model"
_TITLE = """# Checking data, beside datasets and tokenizers

`make bench-data`: `check` with everything it reports; `datasets` loading the file and dropping rows with missing
values; `tokenizers` encoding batches of a thousand. Of some runs, in turn, the best time and the most memory.
"""
_BY_HAND = "<!-- A run writes what stands above, and leaves what follows as it is. -->"


@dataclass(frozen=True)
class Best:
    """The best of some runs of one program on one file."""

    rows: int
    seconds: float
    cpu_seconds: float
    peak_mib: float
    tokens: int | None

    @property
    def rows_per_second(self) -> float:
        """Thousands of them."""
        return self.rows / self.seconds / 1000

    @property
    def cpu(self) -> float:
        """Millionths of a second of a processor for each row."""
        return self.cpu_seconds / self.rows * 1e6


def main() -> int:
    """Make the files, run everybody, print the tables."""
    parser = argparse.ArgumentParser(prog="python -m bench.data", description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--token-rows", type=int, default=200_000, help="rows whose tokens are counted")
    parser.add_argument("--folder", type=Path, help="where the files are made and left; default: a temporary one")
    parser.add_argument("--write", type=Path, help="a page of the tables")
    options = parser.parse_args()
    python = peers()
    kept = written_by_hand(options.write) if options.write else ""
    with tempfile.TemporaryDirectory(prefix="bench-data-") as temporary:
        page = [f"{described()}\n{versions(python)}\n"]
        for part in tables(options, options.folder or Path(temporary), python):
            print(part, flush=True)
            page.append(part)
    if options.write:
        options.write.write_text("\n".join([_TITLE, *page, _BY_HAND]) + kept)
    return 0


def written_by_hand(page: Path) -> str:
    """What stands below the mark of an earlier page."""
    return page.read_text().partition(_BY_HAND)[2] if page.is_file() else "\n"


def tables(options: argparse.Namespace, folder: Path, python: Path) -> Iterator[str]:
    """Every measurement, as Markdown."""
    model = rows.write_model(folder / "cache", MODEL)
    for count in options.rows:
        paths = rows.write(folder, count)
        size = paths["jsonl"].stat().st_size / count
        yield f"## {count:,} rows, {size:.0f} bytes each as JSON Lines\n\n{reading(paths, python, options.runs)}"
        yield three_splits(paths["jsonl"])
    sample = rows.write(folder, options.token_rows)["jsonl"]
    yield f"## Tokens of {options.token_rows:,} rows\n\n{counting(sample, model, python, options.runs)}"


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


_HEAD = "| {} | check: thousand rows/s | µs of CPU a row | MiB | {}: thousand rows/s | µs of CPU a row | MiB | {} |"


def reading(paths: dict[str, Path], python: Path, runs: int) -> str:
    """Everything that `check` reports without a tokenizer, beside loading and dropping rows with missing values."""
    lines = [_HEAD.format("file", "datasets", "check takes: time / CPU"), "|" + "---|" * 8]
    for kind, path in paths.items():
        ours, theirs = in_turn(
            [sys.executable, "-m", "bench.data.ours", "-", path],
            [python, HERE / "peers.py", "datasets", path],
            runs,
        )
        lines.append(_row(kind, ours, theirs))
    return "\n".join(lines) + "\n"


def three_splits(path: Path) -> str:
    """The same rows as training, validation and test set: all are shared, which is the most that there is to keep."""
    found = _best([json.loads(said([sys.executable, "-m", "bench.data.ours", "-", path, path, path]))])
    return f"As three splits that share every row: {found.seconds:.0f} s, at most {found.peak_mib:.0f} MiB.\n"


def counting(path: Path, model: Path, python: Path, runs: int) -> str:
    """`check` with token counts, beside what tokenizers needs to encode the same rows in batches."""
    ours, theirs = in_turn(
        [sys.executable, "-m", "bench.data.ours", model, path],
        [python, HERE / "peers.py", "tokenizers", path, model],
        runs,
    )
    head = _HEAD.format("file", "tokenizers alone", "check takes: time / CPU")
    left_out = "(check, which leaves out the line break behind the end of a turn)"
    counted = f"Tokens: {ours.tokens:,} {left_out} and {theirs.tokens:,}."
    return "\n".join([head, "|" + "---|" * 8, _row("jsonl", ours, theirs), "", counted]) + "\n"


def _row(kind: str, ours: Best, theirs: Best) -> str:
    both = " | ".join(f"{one.rows_per_second:.0f} | {one.cpu:.2f} | {one.peak_mib:.0f}" for one in (ours, theirs))
    return f"| {kind} | {both} | {ours.seconds / theirs.seconds:.2f} / {ours.cpu / theirs.cpu:.2f} |"


def in_turn(ours: list[Any], theirs: list[Any], runs: int) -> tuple[Best, Best]:
    """Both programs, one after the other, `runs` times."""
    found = [(json.loads(said(ours)), json.loads(said(theirs))) for _ in range(runs)]
    return _best([one for one, _ in found]), _best([other for _, other in found])


def _best(runs: list[dict[str, Any]]) -> Best:
    quickest = min(runs, key=lambda run: run["seconds"])
    return Best(
        quickest["rows"],
        quickest["seconds"],
        min(run["cpuSeconds"] for run in runs),
        max(run["peakMiB"] for run in runs),
        quickest.get("tokens"),
    )


if __name__ == "__main__":
    sys.exit(main())
