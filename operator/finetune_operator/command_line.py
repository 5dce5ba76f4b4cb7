"""The command line of `finetune-operator`: a parser that suggests the command or flag that was meant, and output."""

import argparse
import os
import re
import shlex
import sys
from collections.abc import Sequence
from typing import NoReturn

from finetune_api.near_names import nearest_name

_CHOICE = re.compile(r"invalid choice: '(.*)' \(choose from (.*)\)$")


class Parser(argparse.ArgumentParser):
    """argparse's parser, with suggestions for misspelt names. Subcommands use the same class."""

    def parse_known_args(  # type: ignore[override]  # typeshed has it three times
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """See argparse; a subcommand reports its unknown flags itself, since the top-level parser knows none."""
        found, unknown = super().parse_known_args(args, namespace)
        if unknown and self._subparsers is None:
            self.error(f"unrecognized arguments: {shlex.join(unknown)}{self._suggestion(unknown)}")
        return found, unknown

    def error(self, message: str) -> NoReturn:
        """See argparse; suggests the command that was probably meant."""
        choice = _CHOICE.search(message)
        near = nearest_name(choice[1], re.findall(r"[\w-]+", choice[2])) if choice else None
        super().error(message + (f"; did you mean {near}?" if near else ""))

    def _suggestion(self, unknown: Sequence[str]) -> str:
        """A hint: the flag that was probably meant, else to quote a text of several words."""
        flags = [flag for flag in self._option_string_actions if flag.startswith("--")]
        if unknown[0].startswith("-"):
            name = unknown[0].partition("=")[0]
            near = nearest_name(name, flags) if name.startswith("--") else None
            return f"; did you mean {near} instead of {name}?" if near else f"; there are {', '.join(flags)}"
        return "; write a text of several words in quotes"


def print_result(text: str) -> str | None:
    """Print a result to stdout, escaping what its encoding lacks; returns why it could not be written.

    A reader that has closed the pipe, as `head` does, is no error.
    """
    out = sys.stdout
    if out is None:
        return "standard output is closed"
    encoding = out.encoding or "utf-8"
    try:
        print(text.encode(encoding, "backslashreplace").decode(encoding), file=out, flush=True)
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())  # Python would flush it again at exit
        return None if isinstance(error, BrokenPipeError) else f"standard output could not be written: {error.strerror}"
    return None
