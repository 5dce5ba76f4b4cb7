"""The first lines of the child that runs `spec.code`: the code as `python train.py` would run it, and where it raised.

What is noted is read by `code_end.py`: no text of the error, which may quote data. No library is imported here: code
that needs none is done in a moment.
"""

import builtins
import contextlib
import io
import json
import os
import sys
import tokenize
import traceback
from pathlib import Path
from types import TracebackType
from typing import Any

RAISED = "raised.json"
"""In the child's working folder: the error that ended it, and where it comes from."""

COMMAND = "from finetune_trainer.training.code_start import main; main()"
"""For `python -c`, followed by the code's file: its main module has no names of ours then."""


def main() -> None:
    """Run the file that the command line names as the main module of this process."""
    sys.argv = sys.argv[1:]
    file, note = sys.argv[0], Path.cwd() / RAISED  # the code may go elsewhere
    folders = (str(Path(file).resolve().parent), str(Path(file).parent))
    if not sys.flags.safe_path:
        sys.path[0] = folders[0]  # as for any script; it was the working folder
    names = _empty_main(file)
    try:
        exec(compile(_source(Path(file)), file, "exec", dont_inherit=True), names)  # noqa: S102 - an admin allows it
    except BaseException as error:
        _leave(note, error, folders)
        _print_without_our_frames()
        raise


def _empty_main(file: str) -> dict[str, Any]:
    """The names that the main module of a script begins with, in place of all that it has."""
    names = sys.modules["__main__"].__dict__
    names.clear()
    names |= dict.fromkeys(("__doc__", "__loader__", "__package__", "__spec__", "__cached__"))
    names |= {"__name__": "__main__", "__builtins__": builtins, "__file__": file}
    return names


def _source(file: Path) -> bytes:
    """What is in the file.

    Raises:
        SyntaxError: it is no text of its encoding. Python itself looks where it reads a file, and not at bytes.
    """
    content = file.read_bytes()
    encoding, _ = tokenize.detect_encoding(io.BytesIO(content).readline)
    try:
        content.decode(encoding)
        wrong = content.find(b"\0")
    except UnicodeDecodeError as error:
        wrong = error.start
    if wrong >= 0:
        line = content.count(b"\n", 0, wrong) + 1
        raise SyntaxError(f"the file is not text in {encoding}", (str(file), line, None, None))
    return content


def _leave(note: Path, error: BaseException, folders: tuple[str, ...]) -> None:
    found = {"type": type(error).__name__, "place": _place(error, folders)}
    if isinstance(error, ImportError):
        found["module"] = error.name
    if found["type"] == "TrainerError":  # of the recipe's own pieces
        found["reason"] = str(getattr(error, "reason", None))
    with contextlib.suppress(OSError):
        note.write_text(json.dumps(found), encoding="utf-8")


def _place(error: BaseException, folders: tuple[str, ...]) -> str | None:
    """File and line of the code, or of what is beside it, that the error went through last."""
    if isinstance(error, SyntaxError) and error.filename and error.lineno and _is_of(error.filename, folders):
        return f"{Path(error.filename).name} line {error.lineno}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_of(frame.filename, folders)]
    return f"{Path(frames[-1].filename).name} line {frames[-1].lineno}" if frames else None


def _is_of(file: str, folders: tuple[str, ...]) -> bool:
    return any(file.startswith(folder + os.sep) for folder in folders)


def _print_without_our_frames() -> None:
    """Python is about to print the error: its trace is to be that of the user's file."""
    hook = sys.excepthook

    def without_ours(kind: type[BaseException], raised: BaseException, trace: TracebackType | None) -> None:
        while trace is not None and trace.tb_frame.f_code.co_filename in (__file__, "<string>"):
            trace = trace.tb_next
        hook(kind, raised.with_traceback(trace), trace)

    sys.excepthook = without_ours
