"""The argument parser: argparse, with errors that suggest what was probably meant.

The commands and their flags are in `__main__.py`.
"""

import argparse
import re
import shlex
from collections.abc import Mapping, Sequence
from math import inf
from pathlib import Path
from typing import Any, ClassVar, NoReturn

_ALIASES = {
    "run": ("finetune", "tune", "sft", "lora", "evaluate", "eval", "test"),
    "serve": ("chat", "generate", "infer", "predict", "deploy"),
    "check": ("validate", "lint", "verify"),
    "cache": ("download", "pull"),
    "push": ("upload", "publish"),
}
"""Commands of other tools for each of ours: `run` evaluates too, if the job has a test set."""

_AS_JSON = re.compile("unrecognized arguments: (-o|-j|--(output|format|json)[a-z-]*)\\b")
"""Flags that ask other tools for JSON, which `check` always prints."""
_LAST_PORT = 65535


class _Once(argparse.Action):
    """A flag with one value. argparse itself silently uses the last one if a flag is repeated."""

    def __call__(
        self, _: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        """See argparse. The flags seen are kept in the namespace, which belongs to this one parse."""
        given = vars(namespace).setdefault("given", set())
        if option is not None and self.dest in given:
            raise argparse.ArgumentError(self, "it occurs twice, and takes one value")
        given.add(self.dest)
        setattr(namespace, self.dest, values)


def _choice_meant(message: str) -> str:
    """The command or value that was probably meant, among argparse's choices."""
    from finetune_api.near_names import nearest_name

    if not (found := re.search(r"invalid choice: '(.*)' \(choose from (.*)\)$", message)):
        return ""
    choices = re.findall(r"[\w-]+", found[2])
    known = (ours for ours, words in _ALIASES.items() if ours in choices and found[1].lower() in words)
    near = next(known, None) or nearest_name(found[1], choices)
    return f"; did you mean {near}?" if near else ""


def _flag_for_letters(letters: str, flags: Sequence[str]) -> str | None:
    """The flag meant by `-o` or `-output` if no flag has one dash: the only one that starts with these letters."""
    begin_so = [flag for flag in flags if flag.startswith(f"--{letters}")]
    return begin_so[0] if len(begin_so) == 1 else None


class Parser(argparse.ArgumentParser):
    """A parser whose flags are `_Once` unless declared otherwise, and whose errors suggest a correction.

    Its subcommands use the same class.
    """

    examples: ClassVar[Mapping[str, str]] = {}
    """A complete command line for each command that people type."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.register("action", None, _Once)
        self._line: list[str] = []

    def parse_known_args(  # type: ignore[override]  # typeshed has it three times
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """See argparse. A subcommand reports unknown flags itself: the top parser does not know its flags."""
        self._line = list(args or ())
        found, unknown = super().parse_known_args(args, namespace)
        if unknown and self._subparsers is None:
            self.error(f"unrecognized arguments: {shlex.join(unknown)}")
        return found, unknown

    def error(self, message: str) -> NoReturn:
        """See argparse. Appends what was probably meant, or an example with all required flags."""
        meant, example = _choice_meant(message) or self._meant(), self.examples.get(self.prog.rpartition(" ")[2])
        if not meant and example and "arguments are required" in message:
            meant = f"; for example: finetune-trainer {example}"
        if not meant and self.prog.endswith(" check") and _AS_JSON.match(message):
            meant = "; the verdict is printed as JSON without any flag"
        super().error(message + meant)

    def _meant(self) -> str:
        """A suggestion: a missing flag before a word, or a misspelt flag."""
        from finetune_api.near_names import nearest_name

        flags = [flag for flag in self._option_string_actions if flag.startswith("--")]
        takes = 0.0
        for word in self._line:
            name = word.partition("=")[0]
            if word.startswith("--") and not any(flag.startswith(name) for flag in flags):
                near = nearest_name(name, flags)
                return f"; did you mean {near} instead of {name}?" if near else ""
            if re.match("-[A-Za-z]", word) and word[:2] not in self._option_string_actions:
                near = _flag_for_letters(word[1:].partition("=")[0], flags)
                return f"; did you mean {near} instead of {word.partition('=')[0]}?" if near else ""
            if word.startswith("-"):
                action = self._option_string_actions.get(word)
                takes = 0 if action is None or action.nargs == 0 else inf if action.nargs == "+" else 1
            elif takes:
                takes -= 1
            elif needed := self._flag_for_words():
                return f"; did you mean {needed} {shlex.quote(word)}?"
        return ""

    def _flag_for_words(self) -> str | None:
        """The first required flag that can still be given, if the command has no positional arguments."""
        if any(not one.option_strings for one in self._actions):
            return None
        given = {word.partition("=")[0] for word in self._line}
        may = (one for one in self._actions if not (isinstance(one, _Once) and given & set(one.option_strings)))
        return next((one.option_strings[0] for one in may if one.required), None)


def place(text: str) -> Path:
    """A file or a folder, for argparse. Rejects "", an unset shell variable: it would be the current folder.

    Raises:
        ArgumentTypeError: it is empty.
    """
    if not text:
        raise argparse.ArgumentTypeError("it is empty: name a file or a folder")
    return Path(text)


def positive(text: str) -> int:
    """A whole number above 0, for argparse.

    Raises:
        ArgumentTypeError: it is not.
    """
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def quantity(text: str) -> int:
    """Bytes from a Kubernetes quantity, for argparse.

    Raises:
        ArgumentTypeError: it is not.
    """
    from finetune_api.quantities import LEAST_SIZE, amount

    found = amount(text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size: write one such as 24Gi")
    if found < LEAST_SIZE:
        raise argparse.ArgumentTypeError(f"{text!r} lacks its unit, a number alone is bytes: write one such as 24Gi")
    return int(found)


def port(text: str) -> int:
    """A port to listen on, for argparse; 0 lets the system choose.

    Raises:
        ArgumentTypeError: it is not.
    """
    if not text.isdecimal() or int(text) > _LAST_PORT:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port: write 0 to {_LAST_PORT}")
    return int(text)
