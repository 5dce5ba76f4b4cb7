"""What a chat template writes around the turns of a conversation, if it writes their texts unchanged.

Most templates do. Their rows are then concatenated from the frame, fifty times faster than rendering. This is not a
heuristic: the template is rendered once per order of roles, with texts that only allow being written and concatenated.
A template that inspects, measures or changes them has no frame, and is rendered row by row.
"""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes

from finetune_trainer.data.tokenizer.chat_template import ChatEnvironment, TemplateRefusedError, rendered

_TURN = re.compile("\0(\\d+)\0")
_BYPASSING_NODES = (nodes.AssignBlock, nodes.CallBlock, nodes.Concat, nodes.FilterBlock, nodes.Macro)
"""Nodes that turn their input into text without calling its methods: the use of a turn's text would go unnoticed."""


class _InspectedError(Exception):
    """The template does more with a turn's text than write it."""


def _refuse(*_: Any) -> NoReturn:
    raise _InspectedError


class _OpaqueText(str):
    """A text that can only be written and concatenated."""

    __slots__ = ()
    __bool__ = __contains__ = __eq__ = __format__ = __ge__ = __getattribute__ = __getitem__ = __gt__ = __hash__ = (
        _refuse
    )
    __iter__ = __le__ = __len__ = __lt__ = __mod__ = __mul__ = __ne__ = __rmod__ = __rmul__ = _refuse

    def __add__(self, other: str) -> "_OpaqueText":
        return _OpaqueText(str.__add__(self, other))

    def __radd__(self, other: str) -> "_OpaqueText":
        return _OpaqueText(str.__add__(other, self))


class _DetectingEnvironment(ChatEnvironment):
    """Refuses to pass a turn's text to filters and functions: they may inspect it in C, without calling its methods."""

    def __init__(self) -> None:
        super().__init__()
        self.filters = dict.fromkeys(self.filters, _refuse)

    def call(self, context: Any, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        if any(isinstance(value, _OpaqueText) for value in (*args, *kwargs.values())):
            _refuse()
        return super().call(context, function, *args, **kwargs)


def frame(
    template: str, roles: Sequence[str], special_tokens: Mapping[str, str], *, add_generation_prompt: bool
) -> list[str] | None:
    """What is before, between and after the texts of turns with these roles; None if that depends on the texts."""
    detecting = _detecting_template(template)
    if detecting is None:
        return None
    messages = [{"role": role, "content": _OpaqueText(f"\0{number}\0")} for number, role in enumerate(roles)]
    try:
        text = rendered(detecting, messages, special_tokens, add_generation_prompt)
    except (_InspectedError, TemplateRefusedError):
        return None
    pieces = _TURN.split(text)
    return pieces[::2] if pieces[1::2] == [str(number) for number in range(len(roles))] else None


@lru_cache(maxsize=8)
def _detecting_template(template: str) -> jinja2.Template | None:
    """The template in an environment that detects inspected texts; None if it could inspect them undetected."""
    environment = _DetectingEnvironment()
    tree = environment.parse(template)
    if (
        "strftime_now" in template
        or any(map(tree.find, _BYPASSING_NODES))
        or any(map(_searches, tree.find_all(nodes.Compare)))
    ):
        return None
    return environment.from_string(tree)


def _searches(comparison: nodes.Compare) -> bool:
    """Whether it searches in what may be a turn's text for a value that is not a literal."""
    return any(
        one.op in ("in", "notin") and not isinstance(one.expr, nodes.List | nodes.Tuple)
        for one in comparison.ops
        if not isinstance(comparison.expr, nodes.Const)
    )
