"""Requests to /v1/chat/completions and /v1/completions: validated, and refused if they cannot be honoured.

Fields that OpenAI's clients send but that do not affect the answer are ignored. Unsupported fields that would affect it
are refused by name: silently using a default would give a wrong answer.
"""

from codecs import BOM_UTF8
from typing import Annotated, Any, Literal, TypeVar

import orjson
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    StrictStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails

from finetune_trainer.data.rows import Role, Turn
from finetune_trainer.serving.api_errors import ApiError, bad_request
from finetune_trainer.serving.asks import Sampling

_COMPLETIONS_DEFAULT_TOKENS = 16  # OpenAI's own
_INT64 = 1 << 63
_MOST_ANSWERS = 64  # of one request
_LONGEST_ID = 18  # digits of a token id; Python refuses to parse thousands of digits

# For each field, the values that have no effect.
_NOT_SUPPORTED: dict[str, tuple[Any, ...]] = {
    "best_of": (None, 1),
    "prompt_logprobs": (None,),
    "echo": (None, False),
    "suffix": (None, ""),
    "tools": (None, []),
    "tool_choice": (None, "none", "auto"),
    "functions": (None, []),
    "function_call": (None, "none", "auto"),
    "response_format": (None, {"type": "text"}),
    "modalities": (None, ["text"]),
    "audio": (None,),
    "web_search_options": (None,),
    "reasoning_effort": (None, "none"),
    "verbosity": (None, "medium"),
    "min_p": (None, 0),
    "repetition_penalty": (None, 1),
    "length_penalty": (None, 1),
    "use_beam_search": (None, False),
    "min_tokens": (None, 0),
    "ignore_eos": (None, False),
    "stop_token_ids": (None, []),
    "include_stop_str_in_output": (None, False),
    "skip_special_tokens": (None, True),
    "bad_words": (None, []),
    "allowed_token_ids": (None,),
    "truncate_prompt_tokens": (None,),
    "typical_p": (None, 1),
    "documents": (None, []),
    "return_token_ids": (None, False),
    "return_tokens_as_token_ids": (None, False),
    "structured_outputs": (None,),
    "guided_json": (None,),
    "guided_regex": (None,),
    "guided_choice": (None,),
    "guided_grammar": (None,),
    "chat_template": (None,),
    "chat_template_kwargs": (None, {}),
    "add_generation_prompt": (None, True),
    "continue_final_message": (None, False),
    "structural_tag": (None,),
    "logits_processors": (None, []),
    "prompt_embeds": (None,),
    # Names used by other servers and libraries.
    "max_new_tokens": (None,),
    "max_output_tokens": (None,),
    "num_predict": (None,),
    "stop_sequences": (None, []),
    "do_sample": (None,),
    "num_beams": (None, 1),
    "no_repeat_ngram_size": (None, 0),
    "repeat_penalty": (None, 1),
    "grammar": (None, ""),
    "json_schema": (None,),
    "format": (None, ""),
    "options": (None, {}),
}


class _Body(BaseModel):
    model_config = ConfigDict(extra="allow", hide_input_in_errors=True)


class StreamOptions(_Body):
    """What a stream contains besides text."""

    include_usage: StrictBool = False


class TextPart(_Body):
    """A part of a message's content."""

    type: Literal["text"]
    text: StrictStr


class Message(_Body):
    """One turn of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: StrictStr | Annotated[list[TextPart], Field(min_length=1)]

    @model_validator(mode="before")
    @classmethod
    def _calls_no_tool(cls, message: Any) -> Any:
        if isinstance(message, dict) and (message.get("tool_calls") or message.get("function_call")):
            raise ValueError("it calls a tool, and tools are not supported by this server")
        return message

    @property
    def turn(self) -> Turn:
        """For chat templates: developer is OpenAI's newer name for system; text parts are joined by line breaks."""
        role: Role = "system" if self.role == "developer" else self.role
        if isinstance(self.content, str):
            return Turn(role, self.content)
        return Turn(role, "\n".join(part.text for part in self.content))


_Stop = Annotated[StrictStr, Field(min_length=1)]
_Penalty = Annotated[float, Field(ge=-2, le=2, strict=True)]
_PositiveInt = Annotated[StrictInt, Field(ge=1)]
_Likeliest = Annotated[StrictInt, Field(ge=0, le=20)]


class _GenerationBody(_Body):
    """Fields of both routes."""

    model: StrictStr
    stream: StrictBool | None = None
    stream_options: StreamOptions | None = None
    temperature: Annotated[float, Field(ge=0, le=2, strict=True)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1, strict=True)] | None = None
    top_k: Annotated[StrictInt, Field(ge=-1)] | None = None
    seed: Annotated[StrictInt, Field(ge=-_INT64, lt=_INT64)] | None = None
    stop: _Stop | Annotated[list[_Stop], Field(max_length=4)] | None = None
    n: Annotated[StrictInt, Field(ge=1, le=_MOST_ANSWERS)] | None = None
    max_tokens: _PositiveInt | None = None
    presence_penalty: _Penalty | None = None
    frequency_penalty: _Penalty | None = None
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100, strict=True)]] | None = None

    @field_validator("logit_bias")
    @classmethod
    def _token_ids(cls, bias: dict[str, float] | None) -> dict[str, float] | None:
        if any(not (key.isascii() and key.isdecimal()) or len(key) > _LONGEST_ID for key in bias or {}):
            raise ValueError("its keys are token ids")
        return bias

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop sequences."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def wants_usage(self) -> bool:
        """Whether a stream ends with usage counts."""
        return self.stream_options is not None and self.stream_options.include_usage

    def sampling(self, default: Sampling, vocabulary: int) -> Sampling:
        """The request's sampling settings, with the model's own as defaults.

        Raises:
            ApiError: 400, logit_bias names a token that the model does not have.
        """
        bias = tuple((int(token), value) for token, value in (self.logit_bias or {}).items())
        if any(token >= vocabulary for token, _ in bias):
            raise bad_request(f"The model's tokens have ids below {vocabulary}.", "logit_bias")
        return Sampling(
            temperature=default.temperature if self.temperature is None else self.temperature,
            top_p=default.top_p if self.top_p is None else self.top_p,
            top_k=default.top_k if self.top_k is None else max(self.top_k, 0),
            seed=self.seed,
            presence_penalty=self.presence_penalty or 0.0,
            frequency_penalty=self.frequency_penalty or 0.0,
            logit_bias=bias,
        )


class ChatBody(_GenerationBody):
    """A request to /v1/chat/completions."""

    messages: Annotated[list[Message], Field(min_length=1)]
    max_completion_tokens: _PositiveInt | None = None
    logprobs: StrictBool | None = None
    top_logprobs: _Likeliest | None = None

    @property
    def likeliest(self) -> int | None:
        """How many alternatives to return for each token; None: no log probabilities."""
        return self.top_logprobs or 0 if self.logprobs else None

    @property
    def token_limit(self) -> int | None:
        """Maximum tokens of the answer; None: limited by the context only."""
        return self.max_completion_tokens or self.max_tokens


_Tokens = Annotated[list[Annotated[StrictInt, Field(ge=0)]], Field(min_length=1)]


class CompletionBody(_GenerationBody):
    """A request to /v1/completions."""

    prompt: StrictStr | _Tokens | Annotated[list[StrictStr | _Tokens], Field(min_length=1, max_length=_MOST_ANSWERS)]
    logprobs: _Likeliest | None = None

    @field_validator("logprobs", mode="before")
    @classmethod
    def _false_is_none(cls, value: Any) -> Any:
        return None if value is False else value

    @property
    def likeliest(self) -> int | None:
        """How many alternatives to return for each token; None: no log probabilities."""
        return self.logprobs

    @property
    def prompts(self) -> list[str | list[int]]:
        """The prompts; each gets its own answer."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if isinstance(self.prompt[0], int):
            return [self.prompt]
        return self.prompt

    @property
    def token_limit(self) -> int:
        """Maximum tokens of each answer."""
        return self.max_tokens or _COMPLETIONS_DEFAULT_TOKENS


B = TypeVar("B", ChatBody, CompletionBody)


def parse(kind: type[B], raw: bytes) -> B:
    """Parse a request body.

    Raises:
        ApiError: 400, naming the field.
    """
    try:
        body = kind.model_validate_json(raw.removeprefix(BOM_UTF8))
    except ValidationError as error:
        raise _first_problem(error) from None
    for name, neutral in _NOT_SUPPORTED.items():
        value = (body.model_extra or {}).get(name)
        if not any(value == nothing and isinstance(value, bool) == isinstance(nothing, bool) for nothing in neutral):
            raise bad_request(f"{name} is not supported by this server; leave it out.", name, "unsupported_parameter")
    if body.stream_options is not None and not body.stream:
        raise bad_request("stream_options goes with stream: true only.", "stream_options")
    if isinstance(body, ChatBody) and body.top_logprobs and not body.logprobs:
        raise bad_request("top_logprobs goes with logprobs: true only.", "top_logprobs")
    if isinstance(body, CompletionBody) and len(body.prompts) * (body.n or 1) > _MOST_ANSWERS:
        raise bad_request(f"One request may ask for {_MOST_ANSWERS} answers: prompts times n.", "n")
    return body


def has_prompt(raw: bytes) -> bool:
    """Whether a body is that of a completion; invalid JSON is not, and is refused later when parsed."""
    try:
        body = orjson.loads(raw.removeprefix(BOM_UTF8))
    except orjson.JSONDecodeError:
        return False
    return isinstance(body, dict) and "prompt" in body


def _first_problem(error: ValidationError) -> ApiError:
    """The most informative validation error: for unions, that of the branch that got furthest."""
    problem = max(error.errors(include_url=False), key=_informativeness)
    if problem["type"] == "json_invalid":
        why = problem["msg"].removeprefix("Invalid JSON: ")  # a position, without text of the request
        return bad_request(f"The body is not valid JSON: {why}.", None)
    param = ""
    for part in problem["loc"]:
        if isinstance(part, int):
            param += f"[{part}]"
        elif _is_field(part):
            param += f".{part}" if param else part
    said = problem["msg"].removeprefix("Value error, ").replace(" after validation", "")
    return bad_request(f"{param or 'body'}: {said}.", param or None)


def _informativeness(problem: ErrorDetails) -> tuple[bool, int]:
    """Sort key for how informative an error is: a list of the wrong length was meant as one, else the deepest error."""
    return problem["type"] in ("too_long", "too_short"), sum(_is_field(part) for part in problem["loc"])


def _is_field(part: int | str) -> bool:
    """Whether a part of pydantic's location is a field or an index, not a branch of a union (`str`, `list[…]`)."""
    return isinstance(part, int) or (part.isidentifier() and part not in {"str", "int", "float", "bool"})
