"""The `finetune-trainer` command: flags here, the work in one module per command, imported only when it is called.

`check` must not import torch, so nothing at the top of this file may.
"""

import argparse
import os
import shlex
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path

from finetune_api import RELEASE
from finetune_api.exit_codes import ExitCode
from finetune_api.names import SERVE_FLAGS_VARIABLE
from finetune_trainer.command_line import Parser, place, port, positive, quantity

COMMANDS = (
    "check", "run", "train", "prepare", "measure", "sagemaker", "serve", "cache", "prune", "fetch", "base", "push",
)  # fmt: skip
"""Each is the module of the same name."""

PROVIDERS = ("openAI", "openAICompatible", "azureOpenAI", "sageMaker", "bedrock")
"""The names in data.provider.rules, which is imported only when needed."""

_ABOUT = "Fine-tune a language model on rows of prompt and completion, and serve the result."
EXAMPLES = {
    "check": "check -f job.yaml --model-cache models",
    "run": "run -f job.yaml --model-cache models --output tuned",
    "serve": "serve --model tuned/model --model-cache models",
    "cache": "cache HuggingFaceTB/SmolLM2-135M-Instruct --model-cache models",
    "prune": "prune tuned/old --root tuned",
    "fetch": "fetch s3://models/team-a/tuned --to tuned",
    "push": "push tuned/model --to oci://registry.example.com/team-a/tuned:1",
}
"""A complete command line for each command that people type."""
_WAY = ("cache", "check", "run", "serve")
_EXAMPLE = f"""\
from data to an answering model on this machine:
{chr(10).join(f"  finetune-trainer {EXAMPLES[command]}" for command in _WAY)}

exit codes: 0 done, 2 wrong flag, 65 rows that cannot be used, 75 interrupted (run it again to continue), 78 wrong
manifest; the others are in docs/reference/reasons.md. Every failure ends in one line with a reason and a next step.
"""
_Raw = argparse.RawDescriptionHelpFormatter


class _CommandLine(Parser):
    examples = EXAMPLES


def parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    top = _CommandLine(prog="finetune-trainer", description=_ABOUT, epilog=_EXAMPLE, formatter_class=_Raw)
    top.add_argument("--version", action="version", version=f"%(prog)s {RELEASE}", help="show the release and exit")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    _check_flags(
        commands.add_parser("check", help="check a job's manifest and datasets, and print the verdict as JSON")
    )
    _run_flags(commands.add_parser("run", help="run a FineTuneJob on this machine, without a cluster"))
    commands.add_parser("train", help="run the job that the environment describes (for pods)")
    commands.add_parser("prepare", help="check data and pass them on to a provider (for pods)")
    commands.add_parser("measure", help="evaluate a model at a provider on the test set (for pods)")
    sagemaker = commands.add_parser("sagemaker", help="run the job in SageMaker's channels (for its containers)")
    sagemaker.add_argument("--root", type=place, default=Path("/opt/ml"), help="SageMaker's folder (default: /opt/ml)")
    _serve_flags(commands.add_parser("serve", help="serve a tuned or a base model with an OpenAI-compatible API"))
    _cache_flags(commands.add_parser("cache", help="put a base model into a model cache"))
    _prune_flags(commands.add_parser("prune", help="delete output folders that are no longer used"))
    _fetch_flags(commands.add_parser("fetch", help="download a tuned model from an object store, and verify it"))
    _base_flags(commands.add_parser("base", help="find or download the base model of an adapter (for pods)"))
    _push_flags(commands.add_parser("push", help="push a tuned model to a registry or a hub"))
    return top


def _check_flags(check: argparse.ArgumentParser) -> None:
    check.add_argument(
        *("-f", "--file"),
        dest="files",
        type=place,
        nargs="+",
        action="extend",
        required=True,
        help="manifests (YAML or JSON), of jobs above all, or a folder of them; may be repeated: a job is "
        "checked for its LLMConnection, if that is among them",
    )
    check.add_argument("--model-cache", type=place, help="folder of the model cache, for token counts")
    check.add_argument(
        "--gpu-memory",
        type=quantity,
        metavar="SIZE",
        help="estimate whether the job fits into a GPU of this memory, for example 24Gi; needs the model in the cache",
    )
    check.add_argument(
        "--show-rows",
        type=positive,
        nargs="?",
        const=3,
        metavar="N",
        help="show the first N rows of the training set (default: 3) with the tokens that carry loss marked; needs the "
        "model's tokenizer, and prints the data's own text",
    )
    check.add_argument(
        "--provider",
        choices=PROVIDERS,
        help="also apply the rules of this provider, for the job's fields and for its data (default: that of the "
        "job's LLMConnection, if it was given)",
    )
    check.add_argument(
        "--manifest-only",
        action="store_true",
        help="look at no data and no model: for CI, where volumes are not mounted",
    )


def _run_flags(run: argparse.ArgumentParser) -> None:
    run.add_argument("-f", "--file", type=place, required=True, help="manifest of one FineTuneJob (YAML or JSON)")
    run.add_argument("--output", type=place, required=True, help="folder for checkpoints and the tuned model")
    run.add_argument(
        "--model-cache", type=place, help="folder of the model cache; without it the model is downloaded from the hub"
    )
    run.add_argument("--code", type=place, help="Python file that spec.code of the job names")


def _serve_flags(serve: argparse.ArgumentParser) -> None:
    serve.add_argument("--model", type=place, required=True, help="folder of an adapter or a whole model")
    serve.add_argument("--model-cache", type=place, help="folder of the model cache, for an adapter's base model")
    serve.add_argument("--base", type=place, help="folder of an adapter's base model, instead of looking it up")
    serve.add_argument("--name", help="model name in requests (default: the folder's name)")
    serve.add_argument("--host", help="address to listen on (default: all of IPv4 and IPv6)")
    serve.add_argument("--port", type=port, default=8000, help="port to listen on")
    serve.add_argument(
        "--max-model-length",
        type=positive,
        help="maximum number of tokens of prompt and answer together; of an encoder-decoder's, of each",
    )
    serve.add_argument("--api-key-file", type=place, help="file with the bearer key that clients must send")
    serve.add_argument(
        "--dtype",
        choices=["auto", "float32", "bfloat16", "float16"],
        default="auto",
        help="of the weights in memory; auto: as saved on a GPU, float32 on a CPU with memory for it, else bfloat16",
    )
    serve.add_argument(
        "--max-batch-size", type=positive, help="number of requests that are batched (default: 16, on a GPU 64)"
    )
    serve.add_argument(
        "--max-waiting", type=positive, default=128, help="number of requests that may wait before the answer is 503"
    )
    serve.add_argument(
        "--drain-seconds", type=positive, default=25, help="seconds to finish running requests after SIGTERM"
    )
    serve.add_argument("--verify-checksums", action="store_true", help="compare checksums of folders over 1 GiB too")
    serve.add_argument(
        "--allow-hub", action="store_true", help="download an adapter's base model if the cache does not have it"
    )
    serve.add_argument("--trust-remote-code", action="store_true", help="run Python code that the model brings")
    serve.add_argument("--sagemaker", action="store_true", help="answer SageMaker's /ping and /invocations too")


def _cache_flags(cache: argparse.ArgumentParser) -> None:
    cache.add_argument("model", help="name that jobs use, for example HuggingFaceTB/SmolLM2-135M-Instruct")
    cache.add_argument("--model-cache", type=place, required=True, help="folder of the model cache")
    source = cache.add_mutually_exclusive_group()
    source.add_argument("--from-hub", action="store_true", help="fetch from the hub (the default)")
    source.add_argument("--from-folder", type=place, help="folder with a model that was copied in")
    source.add_argument("--from-archive", type=place, help="tar, tar.gz, tar.zst or zip of such a folder")
    source.add_argument("--from-gguf", type=place, help="GGUF file; converted to safetensors")
    cache.add_argument("--revision", help="commit, tag or branch on the hub")


def _prune_flags(prune: argparse.ArgumentParser) -> None:
    prune.add_argument("folders", nargs="+", metavar="FOLDER", help="output folder to delete, or its URI in a store")
    prune.add_argument("--root", required=True, help="folder, or URI of a store, that all of them must be in")
    prune.add_argument("--endpoint", help="URL of an S3-compatible store")


def _fetch_flags(fetch: argparse.ArgumentParser) -> None:
    fetch.add_argument("uri", help="where the model is, as the job's status.result.artifact.uri says")
    fetch.add_argument("--to", type=place, required=True, help="folder for the model's files")
    fetch.add_argument("--sha256", help="SHA-256 of the model's manifest; a different model is rejected")
    fetch.add_argument("--endpoint", help="URL of an S3-compatible store")


def _base_flags(base: argparse.ArgumentParser) -> None:
    base.add_argument("--model", type=place, required=True, help="folder of the adapter")
    base.add_argument("--link", type=place, required=True, help="path of the link to the base model's folder")
    base.add_argument("--model-cache", type=place, help="folder of the model cache")
    base.add_argument("--allow-hub", action="store_true", help="download the base model if the cache does not have it")


def _push_flags(push: argparse.ArgumentParser) -> None:
    push.add_argument("folder", type=place, help="folder of the tuned model")
    push.add_argument("--to", required=True, help="oci://REGISTRY/REPOSITORY:TAG or hf://OWNER/NAME")
    push.add_argument("--plain-http", action="store_true", help="the registry has no TLS")
    push.add_argument("--public", action="store_true", help="make the repository on the hub public")


def with_flags(argv: Sequence[str], environment: Mapping[str, str]) -> list[str]:
    """The command line. A platform that can only pass `serve`, such as SageMaker, gives flags by a variable."""
    given = environment.get(SERVE_FLAGS_VARIABLE, "") if list(argv) == ["serve"] else ""
    return [*argv, *shlex.split(given)]


def _package_missing(command: str, package: str) -> str:
    """For an installation, or an image, with only the dependencies of `check`."""
    return (
        f"`finetune-trainer {command}` needs more than is installed here: {package} is missing. Install all of it with "
        "`pip install './trainer_image[full]'`; on a cluster the connection's trainerImage has to be the whole image.\n"
    )


def _out_of_memory(command: str, error: Exception) -> int:
    """The exit code of a command that ran out of memory before, or outside of, the code that reports its end.

    Raises:
        Exception: the error itself, if it is a different one.
    """
    from finetune_api.reasons import Reason
    from finetune_trainer.attempt.outcome import complain
    from finetune_trainer.errors import TrainerError, is_short_of_memory

    if not is_short_of_memory(error):
        raise error
    message = f"the memory that `finetune-trainer {command}` may take was not enough ({type(error).__name__})"
    step = "Raise the limit (ulimit -v, the container's memory) or end other programs, and try again."
    return complain(TrainerError(Reason.OUT_OF_MEMORY, message, step))


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its module's `main` gets the parsed flags and returns the exit code."""
    args = parser().parse_args(with_flags(sys.argv[1:] if argv is None else argv, os.environ))
    try:
        if argv is None:
            # PID 1 of a container gets no signal without a handler, and importing takes seconds.
            signal.signal(signal.SIGTERM, signal.default_int_handler)
            import_module("finetune_trainer.attempt.interruption").Interruption.ends_the_process = True
        command: Callable[[argparse.Namespace], int] = import_module(f"finetune_trainer.{args.command}").main
        return command(args)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if not package or package.startswith("finetune_"):
            raise
        sys.stderr.write(_package_missing(args.command, package))
        return ExitCode.USAGE
    except (MemoryError, ImportError, OSError, RuntimeError) as error:
        return _out_of_memory(args.command, error)
    except KeyboardInterrupt:  # before a command installs its handlers, or one with nothing to lose
        sys.stderr.write("Interrupted.\n")
        return ExitCode.INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
