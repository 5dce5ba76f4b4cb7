"""One check in a process of its own: `python -m bench.data.ours FILE CACHE|-` prints a line of JSON."""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path


def main() -> None:
    """Check the file as the training set, with token counts where a model cache is named."""
    from finetune_api.job import FineTuneJobSpec
    from finetune_trainer.data import ChatTokenizer
    from finetune_trainer.data.verdict import check_dataset

    path, model = Path(sys.argv[1]), sys.argv[2]
    about = {"connectionRef": {"name": "a"}, "modelRef": {"name": "b"}, "baseModel": "bench/model"}
    spec = FineTuneJobSpec.model_validate(about | {"dataset": {"train": {"uri": path.as_uri()}}})
    tokenizer = None if model == "-" else ChatTokenizer.from_folder(Path(model))
    started = time.perf_counter()
    verdict = check_dataset(spec, tokenizer=tokenizer, allow_local=True)
    seconds = time.perf_counter() - started
    assert verdict.valid, verdict.message
    assert verdict.train is not None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"rows": verdict.train.rows, "tokens": verdict.train.tokens, "seconds": seconds, "peakMiB": peak}))


if __name__ == "__main__":
    main()
