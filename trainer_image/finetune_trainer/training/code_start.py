"""Entry point of the child that runs `spec.code`: runs it as `python train.py` would, and records where it raised.

`code_end.py` reads the record. It contains no error text, which may quote data. Imports no libraries: code that needs
none starts quickly.
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
"""In the child's working folder: the error that ended it, and where it was raised."""

COMMAND = "from finetune_trainer.training.code_start import main; main()"
"""For `python -c`, followed by the code's file: so the main module contains none of our names."""


def main() -> None:
    """Run the file that the command line names as the main module of this process."""
    sys.argv = sys.argv[1:]
    file, note = sys.argv[0], Path.cwd() / RAISED  # the code may change the working folder
    folders = (str(Path(file).resolve().parent), str(Path(file).parent))
    if not sys.flags.safe_path:
        sys.path[0] = folders[0]  # as for any script, instead of the working folder
    names = _empty_main(file)
    try:
        exec(compile(_source(Path(file)), file, "exec", dont_inherit=True), names)  # noqa: S102 - an admin allows it
    except BaseException as error:
        _leave(note, error, folders)
        _print_without_our_frames()
        raise


def _empty_main(file: str) -> dict[str, Any]:
    """Clear the main module and give it the names that a script starts with."""
    names = sys.modules["__main__"].__dict__
    names.clear()
    names |= dict.fromkeys(("__doc__", "__loader__", "__package__", "__spec__", "__cached__"))
    names |= {"__name__": "__main__", "__builtins__": builtins, "__file__": file}
    return names


def _source(file: Path) -> bytes:
    """The file's content.

    Raises:
        SyntaxError: it is not text in its encoding. Python checks this for files, but not for bytes.
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
    if found["type"] == "TrainerError":  # raised by the recipe's functions
        found["reason"] = str(getattr(error, "reason", None))
    with contextlib.suppress(OSError):
        note.write_text(json.dumps(found), encoding="utf-8")


def _place(error: BaseException, folders: tuple[str, ...]) -> str | None:
    """File and line of the last frame in the user's code or a file beside it."""
    if isinstance(error, SyntaxError) and error.filename and error.lineno and _is_of(error.filename, folders):
        return f"{Path(error.filename).name} line {error.lineno}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_of(frame.filename, folders)]
    return f"{Path(frames[-1].filename).name} line {frames[-1].lineno}" if frames else None


def _is_of(file: str, folders: tuple[str, ...]) -> bool:
    return any(file.startswith(folder + os.sep) for folder in folders)


def _print_without_our_frames() -> None:
    """Make the traceback that Python prints start in the user's file."""
    hook = sys.excepthook

    def without_ours(kind: type[BaseException], raised: BaseException, trace: TracebackType | None) -> None:
        while trace is not None and trace.tb_frame.f_code.co_filename in (__file__, "<string>"):
            trace = trace.tb_next
        hook(kind, raised.with_traceback(trace), trace)

    sys.excepthook = without_ours
