"""One check in its own process: `python -m bench.data.ours CACHE|- FILE…` prints a line of JSON."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path


def main() -> None:
    """Check the files as training, validation and test set, with token counts if a model cache is given."""
    from finetune_api.job import FineTuneJobSpec
    from finetune_trainer.data import ChatTokenizer, fingerprints  # noqa: F401 - loaded before the clock runs
    from finetune_trainer.data.files import parquet  # noqa: F401 - loaded before the clock runs
    from finetune_trainer.data.verdict import check_dataset

    model, *paths = sys.argv[1:]
    splits = zip(("train", "validation", "test"), paths, strict=False)
    dataset = {split: {"uri": Path(path).as_uri()} for split, path in splits}
    about = {"connectionRef": {"name": "a"}, "modelRef": {"name": "b"}, "baseModel": "bench/model"}
    spec = FineTuneJobSpec.model_validate(about | {"dataset": dataset})
    tokenizer = None if model == "-" else ChatTokenizer.from_folder(Path(model))
    started, computed = time.perf_counter(), time.process_time()
    verdict = check_dataset(spec, tokenizer=tokenizer, allow_local=True)
    took = {"seconds": time.perf_counter() - started, "cpuSeconds": time.process_time() - computed}
    assert verdict.valid, verdict.message
    assert verdict.train is not None
    # The kernel's peak of this program only: that of rusage includes the memory of the parent process.
    peak = int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) / 1024
    print(json.dumps({"rows": verdict.train.rows, "tokens": verdict.train.tokens, "peakMiB": peak} | took))


if __name__ == "__main__":
    main()
