"""Chat templates rendered exactly as transformers' `apply_chat_template` does, without transformers.

The environment is transformers' own: a sandbox without changes to values, the same whitespace rules, the same
filters and functions. Tools and documents are not supported: rows have none. What takes no end, or more memory than any
conversation needs, is refused: templates come with models from anywhere.
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
"""For base models without a template: turns one under the other, the assistant's ended by the end-of-sequence token."""

JOINED_TEMPLATE = (
    "{% for message in messages %}{% if not loop.first %}{{ '\n' }}{% endif %}{{ message['content'] }}{% endfor %}"
)
"""For encoder-decoders: system message, earlier turns and question, one under the other, with nothing around them."""


_OF_TEMPLATES = (TypeError, ValueError, AttributeError, ArithmeticError, LookupError, RecursionError)
"""What filters and operators raise where a template takes a value for something else."""


MOST_PASSES = 5_000_000
"""Of loops and macros for one conversation: one of 2,000 turns takes 4 million where each turn looks at all others."""

_MOST_OF_A_PRODUCT = 1 << 24
"""Letters, elements or bits."""

_passes: ContextVar[int] = ContextVar("passes", default=0)
"""Of the conversation that is being written."""


class TemplateRefusedError(Exception):
    """The template does not take this conversation. The text is the template's own, or says that it has none.

    Args:
        why: the text.
        fault: what is wrong with the template, where it failed rather than refused; it may quote the conversation.
    """

    def __init__(self, why: str, fault: str | None = None) -> None:
        super().__init__(why)
        self.fault = fault


class TemplateTooMuchError(TemplateRefusedError):
    """It takes more time or memory than any conversation needs: others will take as much."""


class _RaisedError(jinja2.TemplateError):
    """The template has refused by itself."""


class _TooMuchError(jinja2.TemplateError):
    """It takes more time or memory than any conversation needs."""


def render(
    template: str,
    turns: Iterable[Turn],
    special_tokens: Mapping[str, str],
    *,
    add_generation_prompt: bool,
    moment: datetime | None = None,
) -> str:
    """The conversation as the model sees it, special tokens written out.

    Templates that write the time write that of `moment`; where there is none, what the clock says.

    Raises:
        TemplateRefusedError: the template raised, for example because it knows no system message.
    """
    messages = [{"role": turn.role, "content": turn.content} for turn in turns]
    return rendered(compiled(template), messages, special_tokens, add_generation_prompt, said=template, moment=moment)


def rendered(
    template: jinja2.Template,
    messages: Sequence[Mapping[str, str]],
    special_tokens: Mapping[str, str],
    add_generation_prompt: bool,
    *,
    said: str = "",
    moment: datetime | None = None,
) -> str:
    """What the template makes of messages.

    Raises:
        TemplateRefusedError: the template raised.
    """
    _passes.set(0)
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
    except (jinja2.TemplateError, *_OF_TEMPLATES) as error:
        fault = None if isinstance(error, _RaisedError) else str(error) or type(error).__name__
        raise TemplateRefusedError(_own_words(said, error), fault) from None


def _own_words(template: str, error: Exception) -> str:
    """What the template says about its refusal, unless the sentence could hold text of the row."""
    said = str(error)
    return said if said and len(said) <= 200 and said in template else "the template gives no reason"


@lru_cache(maxsize=8)
def compiled(template: str) -> jinja2.Template:
    """The template, ready to render.

    Raises:
        jinja2.TemplateError: it is no Jinja template.
    """
    try:
        return ChatEnvironment().from_string(template)
    except (SyntaxError, ValueError, RecursionError) as error:  # what Python says of what Jinja made of it
        raise jinja2.TemplateError(f"it nests too deep or has numbers too long ({type(error).__name__})") from None


class ChatEnvironment(ImmutableSandboxedEnvironment):
    """What chat templates may use, and how much of it."""

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
            # Reading the property counts; a call would go through the sandbox, and take several times as long.
            body.insert(0, ExprStmt(EnvironmentAttribute("another_pass")).set_lineno(line))
        tree.set_environment(self)
        return tree

    @property
    def another_pass(self) -> None:
        """Read at each pass of a loop or macro.

        Raises:
            TemplateError: it was one too many.
        """
        passes = _passes.get() + 1
        _passes.set(passes)
        if passes > MOST_PASSES:
            raise _TooMuchError(f"its loops take more than {MOST_PASSES:,} passes for one conversation")

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """What `*` and `**` make, where that is not too large."""
        if _product(operator, left, right) > _MOST_OF_A_PRODUCT:
            raise _TooMuchError("it makes a text or number that is longer than any conversation")
        return super().call_binop(context, operator, left, right)


def _product(operator: str, left: Any, right: Any) -> int:
    """About how long it will be."""
    if isinstance(left, int) and isinstance(right, int):
        bits = left.bit_length()
        return bits * max(right, 0) if operator == "**" else bits + right.bit_length()
    times = next((one for one in (left, right) if isinstance(one, int)), 0)
    return times * next((len(one) for one in (left, right) if isinstance(one, Sized)), 0)


class _GenerationBlocks(Extension):
    """`{% generation %}…{% endgeneration %}` marks an answer; the loss is found by prefixes here, so it only renders.

    A scope around the body keeps its variables from leaking, as in transformers, where it is a macro's body.
    """

    tags = {"generation"}  # noqa: RUF012 - jinja2's own way to declare them

    def parse(self, parser: Parser) -> Node | list[Node]:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return Scope(body).set_lineno(line)


class _Dict:
    """`dict` in templates, without the type that could be reached through it."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, keys: Iterable[Any], value: Any = None) -> dict[Any, Any]:
        """As dict.fromkeys."""
        return dict.fromkeys(keys, value)


class _Namespace(Namespace):
    """`namespace` in templates, without attributes that begin with an underscore: they lead to Python's insides."""

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
