"""Whole jobs on this machine's CPU, each in a process of its own: what they say of their memory themselves."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from bench.memory.shapes import SHAPES, config_of, job_of

MODELS = ("tiny", "SmolLM2-135M")
LENGTHS = (128, 512)


def measure() -> Iterator[dict[str, Any]]:
    """One line of the table after the other."""
    for name in MODELS:
        for method in ("LoRA", "QLoRA", "Full"):
            for length in LENGTHS:
                yield {"model": name, "method": method, "length": length} | _case(name, method, length)


def _case(name: str, method: str, length: int) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "bench.memory.cpu", name, method, str(length)],
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main(name: str, method: str, length: int) -> None:
    """One case: a model with random weights, rows of `length` tokens, four steps."""
    from finetune_trainer.interruption import Interruption
    from finetune_trainer.report import Reporter
    from finetune_trainer.train import execute

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        job = job_of(folder, method, batchSize=4, maxSequenceLength=length)
        subprocess.run([sys.executable, "-c", _MAKE, name, str(folder / "cache" / "bench" / "model")], check=True)
        # The tests' tokenizer makes a token of each letter; the template takes about 20.
        row = {"prompt": "x" * int(0.6 * length), "completion": "z" * int(0.3 * length)}
        (folder / "train.jsonl").write_text(16 * (json.dumps(row) + "\n"), encoding="utf-8")
        reporter = Reporter(job)
        execute(job, reporter, Interruption(), allow_local=True)
        reporter.close()
        use = reporter.report.memory
        assert use is not None
        print(json.dumps({"estimate": use.estimated_bytes, "peak": use.peak_bytes, "checkpointing": False}))


_MAKE = "import sys; from pathlib import Path; from bench.memory.cpu import make; make(sys.argv[1], Path(sys.argv[2]))"


def make(name: str, folder: Path) -> None:
    """A model with random weights in bfloat16, as they are published, in a process that does not count."""
    import torch
    from transformers import LlamaForCausalLM

    tokenizer = import_module("tests.assets.tiny_model").make_tiny_tokenizer()
    folder.mkdir(parents=True)
    model: Any = LlamaForCausalLM(config_of(name))
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "manifest.json").write_text(json.dumps({"model": "bench/model"}))


if __name__ == "__main__":
    assert sys.argv[1] in SHAPES
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
