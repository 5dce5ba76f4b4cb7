"""`make bench-data`: `check` beside `datasets` and `tokenizers`, one process for each run; prints Markdown tables.

Runs alternate between ours and the peer's, so that a busy machine affects both; the best of each counts.
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
from dataclasses import astuple, dataclass
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

`check` hashes the file and each row and looks at every text; a second thread hashes large files and decodes Parquet.
`datasets` hashes neither and decodes Parquet by two threads. So either may take more of a processor, and less time.
"""
MB_PER_MIB = 1.048576


@dataclass(frozen=True)
class Best:
    """The best of several runs of one program on one file."""

    rows: int
    seconds: float
    cpu_seconds: float
    peak_mib: float
    tokens: int | None

    @property
    def rows_per_second(self) -> float:
        """In thousands."""
        return self.rows / self.seconds / 1000

    @property
    def cpu(self) -> float:
        """CPU time per row in microseconds."""
        return self.cpu_seconds / self.rows * 1e6


@dataclass(frozen=True)
class Bar:
    """A requirement: a figure of one run that must not exceed `limit`."""

    of: str
    what: str
    figure: float
    limit: float


def main() -> int:
    """Create the files, run all programs, print the tables."""
    parser = argparse.ArgumentParser(prog="python -m bench.data", description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--token-rows", type=int, default=200_000, help="rows whose tokens are counted")
    parser.add_argument("--folder", type=Path, help="where the files are made and left; default: a temporary one")
    parser.add_argument("--write", type=Path, help="a page of the tables")
    options = parser.parse_args()
    python = peers()
    with tempfile.TemporaryDirectory(prefix="bench-data-") as temporary:
        page = [f"{described()}\n{versions(python)}\n"]
        for part in tables(options, options.folder or Path(temporary), python):
            print(part, flush=True)
            page.append(part)
    if options.write:
        options.write.write_text("\n".join([_TITLE, *page]))
    return 0


def tables(options: argparse.Namespace, folder: Path, python: Path) -> Iterator[str]:
    """Every measurement, as Markdown."""
    model, bars = rows.write_model(folder / "cache", MODEL), list[Bar]()
    for count in options.rows:
        paths = rows.write(folder, count)
        size = paths["jsonl"].stat().st_size / count
        beside = reading(paths, python, options.runs)
        yield f"## {count:,} rows, {size:.0f} bytes each as JSON Lines\n\n{_table('datasets', beside)}"
        shared = three_splits(paths["jsonl"])
        yield f"As three splits that share every row: {shared.seconds:.0f} s, at most {shared.peak_mib:.0f} MiB.\n"
        bars += of_reading(count, beside, shared)
    sample = rows.write(folder, options.token_rows)["jsonl"]
    ours, theirs = counting(sample, model, python, options.runs)
    left_out = "(check, which leaves out the line break behind the end of a turn)"
    counted = f"Tokens: {ours.tokens:,} {left_out} and {theirs.tokens:,}."
    table = _table("tokenizers alone", {"jsonl": (ours, theirs)})
    yield f"## Tokens of {options.token_rows:,} rows\n\n{table}\n{counted}\n"
    bars.append(
        Bar(f"{options.token_rows:,}", "jsonl with tokens, time / tokenizers'", ours.seconds / theirs.seconds, 1.1)
    )
    yield f"## What is asked of it\n\n{judged(bars)}"


def of_reading(count: int, beside: dict[str, tuple[Best, Best]], shared: Best) -> list[Bar]:
    """Not slower than datasets, and bounded memory, including all splits and duplicates."""
    peak = max(shared.peak_mib, *(ours.peak_mib for ours, _ in beside.values()))
    return [
        *(
            Bar(f"{count:,}", f"{kind}, time / datasets'", ours.seconds / theirs.seconds, 1.0)
            for kind, (ours, theirs) in beside.items()
        ),
        Bar(f"{count:,}", "peak memory, MB", peak * MB_PER_MIB, 500),
    ]


def judged(bars: list[Bar]) -> str:
    """A table of which bars are met, by elapsed time, which users wait for."""
    lines = ["| rows | what | measured | at most | |", "|" + "---|" * 5]
    for bar in bars:
        of, what, figure, limit = astuple(bar)
        lines.append(f"| {of} | {what} | {figure:.2f} | {limit:g} | {'met' if figure <= limit else '**not met**'} |")
    return "\n".join(lines) + "\n"


def peers() -> Path:
    """The Python of the peers' environment, created once."""
    wanted = HERE / "peers.txt"
    folder = CACHE / f"bench-data-{sha256(wanted.read_bytes()).hexdigest()[:12]}"
    if not (folder / "done").is_file():
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([folder / "bin/python", "-m", "pip", "install", "--quiet", "-r", wanted], check=True)
        (folder / "done").touch()
    return folder / "bin/python"


def versions(python: Path) -> str:
    """Of the peers and of our dependencies."""
    code = "from importlib.metadata import version as v; print(*(f'{n} {v(n)}' for n in NAMES), sep=', ')"
    theirs = said([python, "-c", code.replace("NAMES", "('datasets', 'tokenizers', 'pyarrow')")])
    ours = said([sys.executable, "-c", code.replace("NAMES", "('msgspec', 'pyarrow', 'tokenizers')")])
    return f"Peers: {theirs}. Ours: {ours}."


def said(command: list[Any]) -> str:
    """The last line that a program prints."""
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return done.stdout.strip().rpartition("\n")[2]


_HEAD = "| {} | check: thousand rows/s | µs of CPU a row | MiB | {}: thousand rows/s | µs of CPU a row | MiB | {} |"


def reading(paths: dict[str, Path], python: Path, runs: int) -> dict[str, tuple[Best, Best]]:
    """All that `check` reports without a tokenizer, compared with loading and dropping rows with missing values."""
    return {
        kind: in_turn(
            [sys.executable, "-m", "bench.data.ours", "-", path],
            [python, HERE / "peers.py", "datasets", path],
            runs,
        )
        for kind, path in paths.items()
    }


def three_splits(path: Path) -> Best:
    """The same rows as training, validation and test set: all are duplicates, which needs the most memory."""
    return _best([json.loads(said([sys.executable, "-m", "bench.data.ours", "-", path, path, path]))])


def counting(path: Path, model: Path, python: Path, runs: int) -> tuple[Best, Best]:
    """`check` with token counts, compared with encoding the same rows in batches with tokenizers."""
    return in_turn(
        [sys.executable, "-m", "bench.data.ours", model, path],
        [python, HERE / "peers.py", "tokenizers", path, model],
        runs,
    )


def _table(peer: str, beside: dict[str, tuple[Best, Best]]) -> str:
    lines = [_HEAD.format("file", peer, "check takes: time / CPU"), "|" + "---|" * 8]
    for kind, (ours, theirs) in beside.items():
        both = " | ".join(f"{one.rows_per_second:.0f} | {one.cpu:.2f} | {one.peak_mib:.0f}" for one in (ours, theirs))
        lines.append(f"| {kind} | {both} | {ours.seconds / theirs.seconds:.2f} / {ours.cpu / theirs.cpu:.2f} |")
    return "\n".join(lines) + "\n"


def in_turn(ours: list[Any], theirs: list[Any], runs: int) -> tuple[Best, Best]:
    """Run both programs alternately, `runs` times."""
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
