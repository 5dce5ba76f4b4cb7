"""`make bench-quality`: SmolLM2-135M tuned on half of the rated texts and asked about the other half, for some seeds.

The seed determines halves, order and adapters. Results are saved (out/quality), so an interrupted run can be resumed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from bench.machine import described
from bench.quality import published, texts
from bench.quality.scores import Scores, scores, spread
from demo import quickstart
from demo.console import Console

ROOT = Path(__file__).parents[2]
OUT = ROOT / "out" / "quality"
PAGE = ROOT / "bench" / "results" / "quality.md"
TRAINER = Path(sys.executable).with_name("finetune-trainer")

INTRODUCTION = """\
Written by `make bench-quality`: SmolLM2-135M-Instruct, tuned by the quickstart's own job (one epoch of LoRA) on rows of
one half of the texts that people have rated, and asked about rows of the other. A seed decides halves, order of rows
and adapters; ± is the standard deviation over {seeds} seeds. An answer that is not one of the three words is wrong."""

Result = dict[str, Any]


def main() -> None:
    """Run what is not done yet, and write the page."""
    parser = argparse.ArgumentParser(prog="python -m bench.quality", description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--train-rows", type=int, help="at most so many to learn from; default: half of all")
    parser.add_argument("--test-rows", type=int, help="at most so many to answer; default: half of all")
    options = parser.parse_args()
    at_most = {"train": options.train_rows, "test": options.test_rows}
    downloads = quickstart.fetch(Console())
    files = quickstart.prepare(downloads)
    cache = model_cache(files)
    found = [run(downloads, cache, name, seed, at_most) for seed in options.seeds for name in texts.SETS]
    PAGE.write_text(page(found), encoding="utf-8")


def model_cache(files: Path) -> Path:
    """A model cache with the quickstart's model."""
    cache = OUT / "model-cache"
    if not (cache / quickstart.MODEL / "manifest.json").exists():
        source = next(files.glob("*.gguf"))
        command: list[str | Path] = [TRAINER, "cache", quickstart.MODEL, "--from-gguf", source, "--model-cache", cache]
        subprocess.run(command, check=True)
    return cache


def run(downloads: Path, cache: Path, name: str, seed: int, at_most: dict[str, int | None]) -> Result:
    """One tuning with its answers; saved, so that it is done only once."""
    size = "-".join(str(count or "half") for count in at_most.values())
    folder = OUT / f"{name.replace(' ', '-')}-{size}-{seed}"
    kept = folder / "result.json"
    if kept.exists():
        return dict(json.loads(kept.read_text()))
    counts = texts.write_halves(texts.rows(downloads, name, seed), folder, at_most)
    job, output = folder / "job.json", folder / "tuned"
    job.write_text(json.dumps(manifest(folder, seed)), encoding="utf-8")
    started = time.monotonic()
    command: list[str | Path] = [TRAINER, "run", "-f", job, "--model-cache", cache, "--output", output]
    subprocess.run(command, check=True)
    rows = [json.loads(line) for line in (output / "model/evaluation.jsonl").open(encoding="utf-8")]
    result = {
        "set": name, "seed": seed, "rows": counts, "seconds": round(time.monotonic() - started), "machine": described(),
        "scores": {who: vars(of_answers(rows, who)) for who in ("tuned", "zeroShot")},
    }  # fmt: skip
    kept.write_text(json.dumps(result), encoding="utf-8")
    return result


def manifest(folder: Path, seed: int) -> dict[str, Any]:
    """The quickstart's own job, on these files."""
    job: dict[str, Any] = yaml.safe_load((quickstart.FOLDER / "finetunejob.yaml").read_text(encoding="utf-8"))
    for split in ("train", "validation", "test"):
        job["spec"]["dataset"][split] = {"uri": (folder / f"{split}.jsonl").as_uri()}
    job["spec"]["hyperparameters"]["seed"] = seed
    return job


def of_answers(rows: Sequence[dict[str, Any]], who: str) -> Scores:
    """The scores of the tuned model's or a baseline's answers."""
    answers = [str(row["answers"][who]["answer"]).strip() for row in rows]
    return scores(answers, [row["completion"].strip() for row in rows], texts.LABELS)


def page(found: Sequence[Result]) -> str:
    """A table for each set, with the published figures below."""
    parts = [
        "# How good a tuned model gets",
        INTRODUCTION.format(seeds=len({one["seed"] for one in found})),
        found[-1]["machine"],
        *(table(name, [one for one in found if one["set"] == name]) for name in texts.SETS),
        published.NOTE,
    ]
    return "\n\n".join(parts) + "\n"


def table(name: str, found: Sequence[Result]) -> str:
    """Our figures and those of the paper."""
    rows = found[0]["rows"]
    head = [
        f"## {name.capitalize()}: {rows['train']:,} rows to learn from, {rows['test']:,} to answer", "",
        "| | accuracy | F1, mean of the classes | F1, weighted by class |", "|---|--:|--:|--:|",
    ]  # fmt: skip
    ours = [
        f"| {label} | " + " | ".join(spread([one["scores"][who][metric] for one in found]) for metric in METRICS) + " |"
        for who, label in (("tuned", "**tuned by us**"), ("zeroShot", "the same model, not tuned"))
    ]
    theirs = [f"| {who} (paper) | | | {value:.2f} |" for who, value in published.OVERALL_F1[name].items()]
    took = [one["seconds"] for one in found]
    return "\n".join([*head, *ours, *theirs, "", f"Tuning and all answers took {min(took)} to {max(took)} s."])


METRICS = ("accuracy", "macro_f1", "weighted_f1")

if __name__ == "__main__":
    main()
