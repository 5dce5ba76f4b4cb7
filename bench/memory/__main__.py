"""`make bench-memory`: estimated and measured peak memory, as tables in bench/results/memory.md.

The CPU's part is measured here. The GPU's part is measured if there is a GPU; otherwise the table of its last
measurement is kept (bench/results/memory-gpu.jsonl), with its machine.
"""

import json
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.memory import cpu

RESULTS = Path(__file__).parents[1] / "results"
GPU_LINES = RESULTS / "memory-gpu.jsonl"
GIB = 2**30

Line = dict[str, Any]


def main() -> None:
    """Measure what is possible on this machine and write the page."""
    import torch

    if torch.cuda.is_available():
        done = subprocess.run([sys.executable, "-m", "bench.memory.gpu"], stdout=subprocess.PIPE, text=True, check=True)
        GPU_LINES.write_text(done.stdout, encoding="utf-8")
    here = [print_(line) for line in cpu.measure()]
    machine = f"{platform.processor() or platform.machine()}, torch {torch.__version__}, {datetime.now(UTC):%Y-%m-%d}"
    (RESULTS / "memory.md").write_text(page(here, machine, _of_gpu()), encoding="utf-8")


def print_(line: Line) -> Line:
    """Print the line at once, before the next one is measured."""
    print(json.dumps(line), flush=True)
    return line


def _of_gpu() -> tuple[str, list[Line]]:
    if not GPU_LINES.is_file():
        return "", []
    from bench.memory.gpu import estimate

    head, *lines = map(json.loads, GPU_LINES.read_text(encoding="utf-8").splitlines())
    for line in lines:  # old peaks, new estimate
        case = (line["model"], line["method"], line["length"])
        line["estimate"] = estimate(*case, checkpointing=line["checkpointing"])
    return f"{head['machine']}, torch {head['torch']}, {head['date']}", lines


def page(here: list[Line], machine: str, of_gpu: tuple[str, list[Line]]) -> str:
    """All tables, with an explanation."""
    gpu_machine, gpu = of_gpu
    parts = [
        "# Memory: estimated before a job, and taken by it",
        "Made by `make bench-memory`. The estimate comes from the model's shape alone "
        "(`finetune_trainer/models/memory.py`); weights are random. Error: how far the estimate lies above the peak.",
        "## CPU: the process's largest resident size, whole jobs",
        "What the program takes without a model is set by the tiny shape: only larger ones test the estimate.",
        machine,
        table(here),
    ]
    if gpu:
        rest = "2 rows a pass, 2 passes a step, 30 % of the tokens with loss; peak: as torch allocated it"
        parts += ["## GPU: two steps of the trainer", f"{gpu_machine}; {rest}", table(gpu)]
    return "\n\n".join(parts) + "\n"


def table(lines: list[Line]) -> str:
    """One row per line, and the spread of the errors below."""
    head = "| shape | method | tokens a row | checkpointing | estimate, GiB | peak, GiB | error |"
    rows = [head, "|---|---|--:|---|--:|--:|--:|", *map(_row, lines)]
    errors = [line["estimate"] / line["peak"] - 1 for line in lines if line.get("peak")]
    mean = sum(map(abs, errors)) / max(len(errors), 1)
    spread = f"{len(errors)} peaks: errors from {min(errors):+.0%} to {max(errors):+.0%}, {mean:.0%} in the mean."
    return "\n".join(rows) + f"\n\n{spread}"


def _row(line: Line) -> str:
    peak, estimate = line.get("peak"), line["estimate"]
    measured = f"{peak / GIB:.2f}" if peak else "not enough memory" if line.get("failed") else "not tried: too large"
    error = f"{estimate / peak - 1:+.0%}" if peak else ""
    about = f"{line['model']} | {line['method']} | {line['length']} | {'yes' if line['checkpointing'] else 'no'}"
    return f"| {about} | {estimate / GIB:.2f} | {measured} | {error} |"


if __name__ == "__main__":
    main()
