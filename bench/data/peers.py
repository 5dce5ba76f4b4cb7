"""The peers, in a process of their environment: `python peers.py datasets|tokenizers FILE [MODEL]`.

datasets: load the file, which writes its cache of Arrow files, and drop rows with a missing value. tokenizers: encode
prompt and completion with the chat template's text, a thousand rows at a time; reading is not counted.
"""

import json
import sys
import tempfile
import time
from pathlib import Path


def by_datasets(path: Path) -> dict[str, float]:
    """Load and filter."""
    import datasets

    datasets.disable_progress_bars()
    kind = {"jsonl": "json"}.get(path.suffix[1:], path.suffix[1:])
    with tempfile.TemporaryDirectory() as cache:
        started, computed = time.perf_counter(), time.process_time()
        loaded = datasets.load_dataset(kind, data_files=str(path), split="train", cache_dir=cache)
        kept = loaded.filter(
            lambda batch: [bool(a) and bool(b) for a, b in zip(batch["prompt"], batch["completion"], strict=True)],
            batched=True,
        )
        took = {"seconds": time.perf_counter() - started, "cpuSeconds": time.process_time() - computed}
        return {"rows": len(kept)} | took


def by_tokenizers(path: Path, model: Path) -> dict[str, float]:
    """Encode in batches."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    seconds, cpu_seconds, tokens, count = 0.0, 0.0, 0, 0
    batch: list[str] = []

    def encode() -> None:
        nonlocal seconds, cpu_seconds, tokens
        started, computed = time.perf_counter(), time.process_time()
        tokens += sum(len(found.ids) for found in tokenizer.encode_batch_fast(batch, add_special_tokens=False))
        seconds += time.perf_counter() - started
        cpu_seconds += time.process_time() - computed
        batch.clear()

    with path.open() as lines:
        for line in lines:
            row = json.loads(line)
            count += 1
            batch.append(
                f"<|im_start|>user\n{row['prompt']}<|im_end|>\n<|im_start|>assistant\n{row['completion']}<|im_end|>\n"
            )
            if len(batch) == 1000:
                encode()
    encode()
    return {"rows": count, "tokens": tokens, "seconds": seconds, "cpuSeconds": cpu_seconds}


def main() -> None:
    """Run a peer and print a line of JSON."""
    said = by_datasets(Path(sys.argv[2])) if sys.argv[1] == "datasets" else by_tokenizers(*map(Path, sys.argv[2:]))
    peak = int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) / 1024
    print(json.dumps(said | {"peakMiB": peak}))


if __name__ == "__main__":
    main()
