"""One contender, in this process: `python -m bench.trainer.contend '{"contender": "ours", "shape": "135M", …}'`.

The argument is a Task as JSON; the last line of the output is the result as JSON.
"""

import json
import os
import sys
from importlib import import_module
from importlib.metadata import version

from bench.trainer.work import Task

PROGRAMS = {
    "ours": "bench.trainer.ours",
    "transformers": "bench.trainer.by_transformers",
    "trl": "bench.trainer.by_trl",
    "llamafactory": "bench.trainer.by_llamafactory",
    "unsloth": "bench.trainer.by_unsloth",
}
"""By the first part of a contender's name."""

MARK = "RESULT "

_LIBRARIES = ("unsloth", "llamafactory", "trl", "liger_kernel", "peft", "transformers", "torch", "triton")


def versions() -> dict[str, str]:
    """Versions of the libraries that this process has imported."""
    return {name: version(name) for name in _LIBRARIES if name in sys.modules}


def main() -> None:
    """Run the contender named in the command line."""
    task = Task(**json.loads(sys.argv[1]))
    os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    os.environ |= {"UNSLOTH_DISABLE_STATISTICS": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    result = import_module(PROGRAMS[task.program]).run(task)
    sys.stdout.write(f"{MARK}{json.dumps(result | {'versions': versions()})}\n")


if __name__ == "__main__":
    main()
