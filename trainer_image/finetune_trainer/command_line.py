"""How a command line is read: as by argparse, and what is wrong with it is said with what was probably meant.

Which commands and flags there are is `__main__.py`.
"""

import argparse
import re
import shlex
from collections.abc import Mapping, Sequence
from math import inf
from pathlib import Path
from typing import Any, ClassVar, NoReturn

_IN_OTHER_WORDS = {
    "run": ("finetune", "tune", "sft", "lora", "evaluate", "eval", "test"),
    "serve": ("chat", "generate", "infer", "predict", "deploy"),
    "check": ("validate", "lint", "verify"),
    "cache": ("download", "pull"),
    "push": ("upload", "publish"),
}
"""Commands of other tools, by the one here that does it: `run` evaluates as well, where the job has a test set."""

_AS_JSON = re.compile("unrecognized arguments: (-o|-j|--(output|format|json)[a-z-]*)\\b")
"""Flags by which other tools are asked for JSON, which `check` always prints."""
_LAST_PORT = 65535


class _Once(argparse.Action):
    """A flag with one value: argparse itself takes the last of several, and says nothing of the others."""

    def __call__(
        self, _: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        """See argparse; what has been given is remembered beside the values, which only this reading has."""
        given = vars(namespace).setdefault("given", set())
        if option is not None and self.dest in given:
            raise argparse.ArgumentError(self, "it occurs twice, and takes one value")
        given.add(self.dest)
        setattr(namespace, self.dest, values)


def _choice_meant(message: str) -> str:
    """The command or value that was probably meant, of those that argparse lists."""
    from finetune_api.near_names import like

    if not (found := re.search(r"invalid choice: '(.*)' \(choose from (.*)\)$", message)):
        return ""
    choices = re.findall(r"[\w-]+", found[2])
    known = (ours for ours, words in _IN_OTHER_WORDS.items() if ours in choices and found[1].lower() in words)
    near = next(known, None) or like(found[1], choices)
    return f"; did you mean {near}?" if near else ""


def _flag_for_letters(letters: str, flags: Sequence[str]) -> str | None:
    """The flag that `-o` or `-output` may mean where no flag is written with one dash: the only one that begins so."""
    begin_so = [flag for flag in flags if flag.startswith(f"--{letters}")]
    return begin_so[0] if len(begin_so) == 1 else None


class Parser(argparse.ArgumentParser):
    """One whose flags are `_Once`, unless they say otherwise, and that says what to type for what it does not know.

    Its commands are of the same class.
    """

    examples: ClassVar[Mapping[str, str]] = {}
    """A whole line of each command that a person types."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.register("action", None, _Once)
        self._line: list[str] = []

    def parse_known_args(  # type: ignore[override]  # typeshed has it three times
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """See argparse; a command tells what it does not know itself, since the whole line's parser knows no flags."""
        self._line = list(args or ())
        found, unknown = super().parse_known_args(args, namespace)
        if unknown and self._subparsers is None:
            self.error(f"unrecognized arguments: {shlex.join(unknown)}")
        return found, unknown

    def error(self, message: str) -> NoReturn:
        """See argparse; what was probably meant stands behind it, or a line that has all that the command needs."""
        meant, example = _choice_meant(message) or self._meant(), self.examples.get(self.prog.rpartition(" ")[2])
        if not meant and example and "arguments are required" in message:
            meant = f"; for example: finetune-trainer {example}"
        if not meant and self.prog.endswith(" check") and _AS_JSON.match(message):
            meant = "; the verdict is printed as JSON without any flag"
        super().error(message + meant)

    def _meant(self) -> str:
        """The line as it was probably meant: a word in front of which its flag is missing, or a misspelt flag."""
        from finetune_api.near_names import like

        flags = [flag for flag in self._option_string_actions if flag.startswith("--")]
        takes = 0.0
        for word in self._line:
            name = word.partition("=")[0]
            if word.startswith("--") and not any(flag.startswith(name) for flag in flags):
                near = like(name, flags)
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
        """The first flag that has to be there, and may still be given, of a command that takes no words without one."""
        if any(not one.option_strings for one in self._actions):
            return None
        given = {word.partition("=")[0] for word in self._line}
        may = (one for one in self._actions if not (isinstance(one, _Once) and given & set(one.option_strings)))
        return next((one.option_strings[0] for one in may if one.required), None)


def place(text: str) -> Path:
    """A file or a folder, for argparse. A variable that is not set would be the folder that one happens to be in.

    Raises:
        ArgumentTypeError: it is empty.
    """
    if not text:
        raise argparse.ArgumentTypeError("it is empty: name a file or a folder")
    return Path(text)


def positive(text: str) -> int:
    """A whole number above 0, for argparse.

    Raises:
        ArgumentTypeError: it is none.
    """
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def quantity(text: str) -> int:
    """Bytes from a Kubernetes quantity, for argparse.

    Raises:
        ArgumentTypeError: it is none.
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
        ArgumentTypeError: it is none.
    """
    if not text.isdecimal() or int(text) > _LAST_PORT:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port: write 0 to {_LAST_PORT}")
    return int(text)
