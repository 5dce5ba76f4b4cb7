"""Chat templates rendered exactly as transformers' `apply_chat_template` does, without transformers.

The environment is the one of transformers: an immutable sandbox with the same whitespace rules, filters and functions.
Tools and documents are not supported: rows have none. Templates come with untrusted models, so those that never end or
need more memory than any conversation are stopped.
"""

import json
from collections.abc import Iterable, Mapping, Sequence, Sized
from contextvars import ContextVar
from datetime import datetime
from functools import lru_cache
from typing import Any, NoReturn

import jinja2
from jinja2.ext import Extension, loopcontrols
from jinja2.nodes import EnvironmentAttribute, ExprStmt, For, Macro, Node, Scope, Template
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from finetune_trainer.data.rows import Turn

PLAIN_TEMPLATE = (
    "{% for message in messages %}{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% else %}{{ '\n' }}{% endif %}{% endfor %}"
)
"""For base models without a template: one turn per line, the assistant's ended by the end-of-sequence token."""

JOINED_TEMPLATE = (
    "{% for message in messages %}{% if not loop.first %}{{ '\n' }}{% endif %}{{ message['content'] }}{% endfor %}"
)
"""For encoder-decoders: system message, earlier turns and question, one per line, with nothing around them."""


_TEMPLATE_ERRORS = (TypeError, ValueError, AttributeError, ArithmeticError, LookupError, RecursionError)
"""What filters and operators raise if a template uses a value of the wrong type."""


MAX_ITERATIONS = 5_000_000
"""Limit of loop and macro iterations per conversation; 2,000 turns, each compared with all others, take 4 million."""

_MAX_PRODUCT = 1 << 24
"""Maximum size of a product, in characters, elements or bits."""

_iterations: ContextVar[int] = ContextVar("passes", default=0)
"""Iterations so far for the conversation being rendered."""


class TemplateRefusedError(Exception):
    """The template refuses this conversation. The text is the template's message, or says that it gives none.

    Args:
        why: the message.
        fault: the error, if the template failed rather than refused; it may quote the conversation.
    """

    def __init__(self, why: str, fault: str | None = None) -> None:
        super().__init__(why)
        self.fault = fault


class TemplateTooMuchError(TemplateRefusedError):
    """Rendering takes more time or memory than any conversation needs, so other conversations would too."""


class _RaisedError(jinja2.TemplateError):
    """The template called raise_exception."""


class _TooMuchError(jinja2.TemplateError):
    """Rendering takes more time or memory than any conversation needs."""


def render(
    template: str,
    turns: Iterable[Turn],
    special_tokens: Mapping[str, str],
    *,
    add_generation_prompt: bool,
    moment: datetime | None = None,
) -> str:
    """The conversation as the model sees it, with special tokens as text.

    Templates that write the time use `moment`, or the clock if it is None.

    Raises:
        TemplateRefusedError: the template raised, for example because it supports no system message.
    """
    messages = [{"role": turn.role, "content": turn.content} for turn in turns]
    return rendered(compiled(template), messages, special_tokens, add_generation_prompt, source=template, moment=moment)


def rendered(
    template: jinja2.Template,
    messages: Sequence[Mapping[str, str]],
    special_tokens: Mapping[str, str],
    add_generation_prompt: bool,
    *,
    source: str = "",
    moment: datetime | None = None,
) -> str:
    """The template applied to messages.

    Raises:
        TemplateRefusedError: the template raised.
    """
    _iterations.set(0)
    try:
        return template.render(
            messages=messages,
            tools=None,
            documents=None,
            add_generation_prompt=add_generation_prompt,
            **special_tokens,
            **({} if moment is None else {"strftime_now": moment.strftime}),
        )
    except _TooMuchError as error:
        raise TemplateTooMuchError(str(error), str(error)) from None
    except (jinja2.TemplateError, *_TEMPLATE_ERRORS) as error:
        fault = None if isinstance(error, _RaisedError) else str(error) or type(error).__name__
        raise TemplateRefusedError(_message(source, error), fault) from None


def _message(template: str, error: Exception) -> str:
    """The template's message for its refusal, unless it could contain text of the row."""
    message = str(error)
    return message if message and len(message) <= 200 and message in template else "the template gives no reason"


@lru_cache(maxsize=8)
def compiled(template: str) -> jinja2.Template:
    """The template, ready to render.

    Raises:
        jinja2.TemplateError: it is no Jinja template.
    """
    try:
        return ChatEnvironment().from_string(template)
    except (SyntaxError, ValueError, RecursionError) as error:  # from Python, when it compiles Jinja's output
        raise jinja2.TemplateError(f"it nests too deep or has numbers too long ({type(error).__name__})") from None


class ChatEnvironment(ImmutableSandboxedEnvironment):
    """The functions available to chat templates, with limits on their use."""

    intercepted_binops = frozenset({"*", "**"})

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationBlocks, loopcontrols])
        self.filters["tojson"] = _to_json
        self.globals |= {
            "raise_exception": _raise_exception,
            "strftime_now": _strftime_now,
            "dict": _Dict(),
            "namespace": _Namespace,
        }

    def _parse(self, source: str, name: str | None, filename: str | None) -> Template:
        tree = super()._parse(source, name, filename)
        passes = [(one.body, one.lineno) for one in tree.find_all(For)]
        passes += [(one.body, one.lineno) for one in tree.find_all(Macro)]
        for body, line in passes:
            # Reading a property counts the iteration; a call would go through the sandbox, and be several times slower.
            body.insert(0, ExprStmt(EnvironmentAttribute("count_iteration")).set_lineno(line))
        tree.set_environment(self)
        return tree

    @property
    def count_iteration(self) -> None:
        """Read at each iteration of a loop or macro.

        Raises:
            TemplateError: the limit is exceeded.
        """
        passes = _iterations.get() + 1
        _iterations.set(passes)
        if passes > MAX_ITERATIONS:
            raise _TooMuchError(f"its loops take more than {MAX_ITERATIONS:,} passes for one conversation")

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """The result of `*` or `**`, unless it is too large."""
        if _product(operator, left, right) > _MAX_PRODUCT:
            raise _TooMuchError("it makes a text or number that is longer than any conversation")
        return super().call_binop(context, operator, left, right)


def _product(operator: str, left: Any, right: Any) -> int:
    """Approximate size of the result."""
    if isinstance(left, int) and isinstance(right, int):
        bits = left.bit_length()
        return bits * max(right, 0) if operator == "**" else bits + right.bit_length()
    times = next((one for one in (left, right) if isinstance(one, int)), 0)
    return times * next((len(one) for one in (left, right) if isinstance(one, Sized)), 0)


class _GenerationBlocks(Extension):
    """`{% generation %}…{% endgeneration %}` marks an answer. Only rendered: the loss is found by prefixes here.

    A scope around the body keeps its variables local, as in transformers, where it is the body of a macro.
    """

    tags = {"generation"}  # noqa: RUF012 - how jinja2 declares them

    def parse(self, parser: Parser) -> Node | list[Node]:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return Scope(body).set_lineno(line)


class _Dict:
    """`dict` in templates, without exposing the type."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, keys: Iterable[Any], value: Any = None) -> dict[Any, Any]:
        """As dict.fromkeys."""
        return dict.fromkeys(keys, value)


class _Namespace(Namespace):
    """`namespace` in templates, without attributes that begin with an underscore: they lead to Python internals."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        self, given = args[0], dict(*args[1:], **kwargs)
        for name in given:
            _refuse_underscore(name)
        Namespace.__init__(self, given)

    def __setitem__(self, name: str, value: Any) -> None:
        _refuse_underscore(name)
        super().__setitem__(name, value)


def _refuse_underscore(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError("a namespace of a chat template has no attributes that begin with _")


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> NoReturn:
    raise _RaisedError(message)


def _strftime_now(format: str) -> str:  # noqa: A002 - templates may pass it by name
    return datetime.now().strftime(format)  # noqa: DTZ005 - local time, as at inference
