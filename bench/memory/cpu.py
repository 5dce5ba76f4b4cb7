"""Complete jobs on this machine's CPU, each in its own process, which reports its peak memory."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from bench.memory.shapes import config_of, job_of

MODELS = ("tiny", "SmolLM2-135M")
LENGTHS = ("128", "512", "32-512")
"""Tokens per row: of all rows, or a range."""
ROWS_PER_STEP = 4


def measure() -> Iterator[dict[str, Any]]:
    """One line of the table after the other."""
    for name in MODELS:
        with tempfile.TemporaryDirectory() as cache:
            subprocess.run([sys.executable, "-c", _MAKE, name, f"{cache}/bench/model"], check=True)
            for method in ("LoRA", "QLoRA", "Full"):
                for length in LENGTHS:
                    yield {"model": name, "method": method, "length": length} | _case(cache, method, length)


def _case(cache: str, method: str, length: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "bench.memory.cpu", cache, method, length], capture_output=True, text=True, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main(cache: str, method: str, length: str) -> None:
    """One case: two steps with rows of equal length, or six with rows of many lengths."""
    from finetune_trainer.attempt.interruption import Interruption
    from finetune_trainer.attempt.report import Reporter
    from finetune_trainer.train import execute

    shortest, _, longest = length.rpartition("-")
    lengths = [int(longest)] * 2 * ROWS_PER_STEP
    if shortest:  # log-uniform, in a mixed order
        places = [(7 * row) % 24 / 23 for row in range(6 * ROWS_PER_STEP)]
        lengths = [round(int(shortest) * (int(longest) / int(shortest)) ** place) for place in places]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "cache").symlink_to(cache)
        job = job_of(folder, method, batchSize=ROWS_PER_STEP, maxSequenceLength=int(longest))
        (folder / "train.jsonl").write_text("".join(map(_row, lengths)), encoding="utf-8")
        reporter = Reporter(job)
        execute(job, reporter, Interruption(), allow_local=True)
        reporter.close()
        use = reporter.report.memory
        assert use is not None
        print(json.dumps({"estimate": use.estimated_bytes, "peak": use.peak_bytes, "checkpointing": False}))


def _row(length: int) -> str:
    """The tests' tokenizer makes one token per letter; the template adds about 20."""
    return json.dumps({"prompt": "x" * max(1, int(0.7 * length) - 24), "completion": "z" * int(0.3 * length)}) + "\n"


_MAKE = "import sys; from pathlib import Path; from bench.memory.cpu import make; make(sys.argv[1], Path(sys.argv[2]))"


def make(name: str, folder: Path) -> None:
    """A model with random weights in bfloat16, like published ones, written by a process that is not measured."""
    import torch
    from transformers import LlamaForCausalLM

    tokenizer = import_module("tests.assets.tiny_model").make_tiny_tokenizer()
    folder.mkdir(parents=True)
    model: Any = LlamaForCausalLM(config_of(name))
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "manifest.json").write_text(json.dumps({"model": "bench/model"}))


if __name__ == "__main__":
    main(*sys.argv[1:])
