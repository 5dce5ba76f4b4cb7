"""A model's tokenizer together with its chat template: conversation → text → token ids.

Built on `tokenizers` alone, so that `check` can count without transformers; training builds it from the transformers
tokenizer that it saves with the model. Rendered text contains all special tokens, so none are added when it is encoded.
Encoder-decoders have no chat format: their turns are plain text, and the tokenizer itself adds the special tokens.
"""

import json
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import jinja2
from tokenizers import AddedToken, Tokenizer

from finetune_api.job import Hyperparameters
from finetune_api.reasons import Reason
from finetune_trainer.data.row_limit import beyond_context, context_length, positions_of, row_limit
from finetune_trainer.data.rows import Role, Turn
from finetune_trainer.data.tokenizer.chat_template import (
    JOINED_TEMPLATE,
    PLAIN_TEMPLATE,
    TemplateRefusedError,
    compiled,
    render,
)
from finetune_trainer.data.tokenizer.frames import frame
from finetune_trainer.data.tokenizer.template_file import TEMPLATE_STEP, require_renders, template_from_files
from finetune_trainer.data.tokenizer.tokenizer_config import STEP, require_valid
from finetune_trainer.errors import TrainerError
from finetune_trainer.storage import lfs

_TOKEN_FIELDS = tuple(f"{name}_token" for name in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"))
"""Fields for tokens that every tokenizer may have."""
_FRAMED_TURNS = 8  # maximum turns of conversations rendered from a frame: longer orders of roles rarely repeat
_EXAMPLE_ANSWER = "\N{SECTION SIGN}\N{SECTION SIGN}"  # an answer that no template writes itself
_EXAMPLE = (Turn("user", "a"), Turn("assistant", _EXAMPLE_ANSWER))
_NO_TOKENIZER_STEP = (
    "Put a model with a tokenizer.json into the model cache. Where only the tokenizer's older files are there, "
    "transformers mostly writes it: AutoTokenizer.from_pretrained('FOLDER').save_pretrained('FOLDER'); of a "
    "tokenizer.model with the packages sentencepiece and protobuf. For a few kinds it has no such tokenizer (Marian, "
    "M2M100, ProphetNet): name another model."
)


@dataclass(frozen=True)
class ChatTokenizer:
    """Renders conversations and encodes them. Never truncates and never pads."""

    backend: Tokenizer
    template: str
    """The model's own chat template, or PLAIN_TEMPLATE. It must be saved with a tuned model: inference uses it too."""
    special_tokens: Mapping[str, str]
    """By their names in templates: bos_token, eos_token and so on."""
    has_own_template: bool = True
    decoder_start: int | None = None
    """decoder_start_token_id of an encoder-decoder, else None. Prompt and answer are then separate texts."""
    moment: datetime | None = None
    """The time for templates that write it; None for the clock's."""
    positions: int | None = None
    """Size of the model's table of positions, if it has one."""
    context_length: int | None = None
    """Context length of a model that computes its positions."""
    special_ids: frozenset[int] = field(init=False)
    _blank_ids: dict[int, bool] = field(default_factory=dict, repr=False)
    _frames: dict[tuple[bool, tuple[Role, ...]], list[str] | None] = field(default_factory=dict, repr=False)
    """By whether a generation prompt follows, and the roles."""

    def __post_init__(self) -> None:
        self.backend.no_truncation()
        self.backend.no_padding()
        added = self.backend.get_added_tokens_decoder()
        object.__setattr__(self, "special_ids", frozenset(i for i, token in added.items() if token.special))

    @classmethod
    def from_folder(cls, folder: Path, *, moment: datetime | None = None) -> Self:
        """The tokenizer of a model folder: tokenizer.json, tokenizer_config.json, chat_template.jinja.

        `moment` is the time that templates write.

        Raises:
            TrainerError: ModelUnusable, a file is missing or broken.
        """
        backend, special_tokens = tokenizer_from_files(folder)
        start = _decoder_start(folder)
        if start is not None:
            positions = positions_in(folder)
            return cls(backend, JOINED_TEMPLATE, special_tokens, decoder_start=start, positions=positions)
        template, file = template_from_files(folder, _json_or_nothing(folder / "tokenizer_config.json"))
        chat = cls._build(backend, template, special_tokens, file)
        if chat.has_own_template:
            require_renders(chat.template, special_tokens, file)
        known = context_length(_json_or_nothing(folder / "config.json"))
        return replace(chat, moment=moment, positions=positions_in(folder), context_length=known)

    @classmethod
    def from_transformers(cls, tokenizer: Any, *, decoder_start: int | None = None) -> Self:
        """The same from a loaded fast tokenizer. Works on a copy and leaves the given one unchanged.

        Raises:
            TrainerError: ModelUnusable, its template is not a valid Jinja template.
        """
        template = tokenizer.chat_template
        if isinstance(template, Mapping):
            template = template.get("default")
        special_tokens = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
        backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        if decoder_start is not None:
            return cls(backend, JOINED_TEMPLATE, special_tokens, decoder_start=decoder_start)
        return cls._build(backend, template, special_tokens)

    @classmethod
    def _build(
        cls, backend: Tokenizer, template: str | None, special_tokens: Mapping[str, str], file: str = "its tokenizer"
    ) -> Self:
        if template is None or not template.strip():
            return cls(backend, _plain_template(backend, special_tokens), special_tokens, has_own_template=False)
        try:
            compiled(template)
        except jinja2.TemplateError as error:
            line = f", line {error.lineno}" if isinstance(error, jinja2.TemplateSyntaxError) else ""
            message = f"the chat template of the model is broken ({file}{line}): {error}"
            raise TrainerError(Reason.MODEL_UNUSABLE, message, TEMPLATE_STEP) from None
        return cls(backend, template, special_tokens)

    @property
    def encoder_decoder(self) -> bool:
        """Whether it belongs to an encoder-decoder: plain text in, plain text out."""
        return self.decoder_start is not None

    def row_limit(self, hyper: Hyperparameters) -> int:
        """Maximum tokens of a row in training."""
        return row_limit(hyper, self.positions)

    def beyond_context(self, longest: int, hyper: Hyperparameters) -> str | None:
        """A warning if the longest row exceeds the model's context length."""
        return beyond_context(longest, self.row_limit(hyper), self.context_length)

    @property
    def eos_id(self) -> int | None:
        """The end-of-sequence token, if the tokenizer names one."""
        token = self.special_tokens.get("eos_token")
        return None if token is None else self.backend.token_to_id(token)

    def render(self, turns: Iterable[Turn], *, add_generation_prompt: bool = False) -> str:
        """The conversation as text.

        Raises:
            TemplateRefusedError: the template refuses it.
        """
        turns = tuple(turns)
        around = self.frame(tuple([turn.role for turn in turns]), add_generation_prompt=add_generation_prompt)
        if around is None:
            return render(
                self.template,
                turns,
                self.special_tokens,
                add_generation_prompt=add_generation_prompt,
                moment=self.moment,
            )
        return around[0] + "".join([turn.content + text for turn, text in zip(turns, around[1:], strict=True)])

    def writes_texts(self, turns: Sequence[Turn]) -> bool:
        """Whether the rendered conversation is sure to contain the texts of such turns unchanged."""
        return self.frame(tuple([turn.role for turn in turns]), add_generation_prompt=False) is not None

    def frame(self, roles: tuple[Role, ...], *, add_generation_prompt: bool) -> list[str] | None:
        """What the template writes around turns with these roles; None if that depends on their texts."""
        if len(roles) > _FRAMED_TURNS:
            return None
        order = add_generation_prompt, roles
        if order not in self._frames:
            tokens = self.special_tokens
            self._frames[order] = frame(self.template, roles, tokens, add_generation_prompt=add_generation_prompt)
        return self._frames[order]

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of rendered texts. Special tokens in them are recognized; only an encoder-decoder's get some added.

        Raises:
            TrainerError: ModelUnusable, the tokenizer fails on a text, mostly because it has no unknown token.
        """
        try:
            encoded = self.backend.encode_batch_fast(texts, add_special_tokens=self.encoder_decoder)
        except Exception as error:
            if type(error) is not Exception:  # the Rust side raises plain Exception
                raise
            message = f"tokenizer.json of the base model fails on a text of the rows: {error}"
            raise TrainerError(Reason.MODEL_UNUSABLE, message[:500], _NO_TOKENIZER_STEP) from None
        return [encoding.ids for encoding in encoded]

    def lost_characters(self, characters: Iterable[str]) -> list[str]:
        """Characters that do not survive encoding and decoding, not even as their Unicode equivalents (NFKC).

        Combining accents are skipped: they become part of their letter.
        """
        found = sorted(one for one in characters if not unicodedata.combining(one))
        back = self.backend.decode_batch(self.ids([f"a{one}a" for one in found]))
        return [
            one
            for one, text in zip(found, back, strict=True)
            if not any(unicodedata.normalize(form, one) in text.strip()[1:-1] for form in ("NFC", "NFKC"))
        ]

    def prompt_ids(self, turns: Iterable[Turn]) -> list[int]:
        """The input at inference: the turns, and the head of the assistant's answer.

        Raises:
            TemplateRefusedError: the template refuses it.
        """
        return self.ids([self.render(turns, add_generation_prompt=True)])[0]

    @cached_property
    def opening(self) -> list[int]:
        """What the template writes before an answer after the generation prompt; mostly nothing.

        For example an empty thought, or the name of a channel. A tuned model writes it too, before its answer.
        """
        try:
            head, whole = self.render(_EXAMPLE[:1], add_generation_prompt=True), self.render(_EXAMPLE)
        except TemplateRefusedError:
            return []
        text = whole.removeprefix(head).partition(_EXAMPLE_ANSWER)[0].rstrip()
        if self.encoder_decoder or not whole.startswith(head) or not text:
            return []
        before, opened = self.ids([head, head + text])
        return opened[len(before) :] if opened[: len(before)] == before else []

    @cached_property
    def opens_thoughts(self) -> bool:
        """Whether the generation prompt opens a thought."""
        with suppress(TemplateRefusedError):
            return self.render(_EXAMPLE[:1], add_generation_prompt=True).rstrip().endswith("<think>")
        return False

    @cached_property
    def repeats_answers(self) -> bool:
        """Whether the template writes an answer more than once."""
        with suppress(TemplateRefusedError):
            return self.render(_EXAMPLE).count(_EXAMPLE_ANSWER) > 1
        return False

    def answer_in(self, ids: list[int]) -> list[int]:
        """A model's output without the template's opening, and without a thought before an opening of special tokens.

        gpt-oss thinks in a message of its own and opens another one for the answer, unless the thought is truncated.
        """
        opening = self.opening
        last = 0 if self.special_ids.isdisjoint(opening) else len(ids) - len(opening)
        found = (start + len(opening) for start in range(last, -1, -1) if ids[start : start + len(opening)] == opening)
        return ids[next(found, len(ids) if last and ids[:1] == opening[:1] else 0) :]

    def end_of_turn(self, ids: Sequence[int]) -> int:
        """Number of ids without the white space that follows a special token at the end.

        Templates write a line break after the end-of-turn token; the model need not learn it, because generation stops
        at the token.
        """
        end = len(ids)
        while end and ids[end - 1] not in self.special_ids and self._is_blank(ids[end - 1]):
            end -= 1
        return end if end and ids[end - 1] in self.special_ids else len(ids)

    def _is_blank(self, token: int) -> bool:
        known = self._blank_ids.get(token)
        if known is None:
            known = self._blank_ids[token] = not self.backend.decode([token], skip_special_tokens=False).strip()
        return known


def is_encoder_decoder(folder: Path) -> bool:
    """Whether the folder holds an encoder-decoder, or an adapter for one."""
    config, adapter = _json_or_nothing(folder / "config.json"), _json_or_nothing(folder / "adapter_config.json")
    return config.get("is_encoder_decoder") is True or adapter.get("task_type") == "SEQ_2_SEQ_LM"


def positions_in(folder: Path) -> int | None:
    """Size of the model's table of positions; None if it has none."""
    return positions_of(_json_or_nothing(folder / "config.json"))


def tokenizer_from_files(folder: Path) -> tuple[Tokenizer, dict[str, str]]:
    """The tokenizer from the files in the folder, and its named special tokens.

    Raises:
        TrainerError: ModelUnusable, a file is missing or broken.
    """
    config = _object(folder / "tokenizer_config.json")
    named = _merged_config(folder, config)
    require_valid(config, named)
    _require_tokens(config, named)
    special_tokens = _special_tokens(named)
    return _backend(folder, config, [*special_tokens.values(), *_unnamed_tokens(named)]), special_tokens


def _decoder_start(folder: Path) -> int | None:
    """decoder_start_token_id; None if the folder's model is causal."""
    if not is_encoder_decoder(folder):
        return None
    config = _json_or_nothing(folder / "config.json")
    start = {**_json_or_nothing(folder / "generation_config.json"), **config}.get("decoder_start_token_id")
    if not isinstance(start, int):
        raise TrainerError(Reason.MODEL_UNUSABLE, "config.json of the base model has no decoder_start_token_id")
    return start


def _json_or_nothing(path: Path) -> dict[str, Any]:
    return _json(path) if path.is_file() else {}


def _object(path: Path) -> dict[str, Any]:
    """The content of a tokenizer file, if present; refused unless it is an object, because transformers fails on it."""
    found = _json_or_nothing(path)
    if not found and path.is_file() and not isinstance(json.loads(_text(path)), dict):
        raise TrainerError(Reason.MODEL_UNUSABLE, f"{path.name} of the base model is not a JSON object", STEP)
    return found


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(_text(path))
    except (ValueError, RecursionError) as error:
        raise _unreadable(path, error) from None
    return value if isinstance(value, dict) else {}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> TrainerError:
    message = f"{path.name} of the base model cannot be read: {type(error).__name__}"
    return TrainerError(Reason.MODEL_UNUSABLE, message)


def _merged_config(folder: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """The config, updated by an older special_tokens_map.json unless the config lists added tokens."""
    old = folder / "special_tokens_map.json"
    with_old = "added_tokens_decoder" not in config and old.is_file()
    return {**config, **_object(old)} if with_old else dict(config)


def _require_tokens(config: Mapping[str, Any], named: Mapping[str, Any]) -> None:
    """Refuse special tokens that transformers rejects when it loads the tokenizer.

    A token from an older special_tokens_map.json may be a plain object.

    Raises:
        TrainerError: ModelUnusable.
    """
    for name in _TOKEN_FIELDS:
        token = config.get(name)
        if named.get(name) is not token or token is None or isinstance(token, str):
            continue
        if not (isinstance(token, Mapping) and token.get("__type") == "AddedToken" and "content" in token):
            kind = "an object without" if isinstance(token, Mapping) else "neither text nor an object with"
            message = f'tokenizer_config.json of the base model: {name} is {kind} "__type": "AddedToken" and content'
            step = (
                f'Write the token\'s text alone there, as in "{name}": "</s>", or put the model into the cache again.'
            )
            raise TrainerError(Reason.MODEL_UNUSABLE, message, step)


def _special_tokens(named: Mapping[str, Any]) -> dict[str, str]:
    """The named special tokens."""
    extra = named.get("extra_special_tokens")
    named = {**named, **extra} if isinstance(extra, Mapping) else named
    tokens = {name: _content(token) for name, token in named.items() if name.endswith("_token")}
    return {name: token for name, token in tokens.items() if token is not None}


def _unnamed_tokens(named: Mapping[str, Any]) -> list[str]:
    """Special tokens without names."""
    lists = (named.get(name) for name in ("additional_special_tokens", "extra_special_tokens"))
    tokens = (_content(token) for one in lists if isinstance(one, list) for token in one)
    return [token for token in tokens if token is not None]


def _content(token: Any) -> str | None:
    if isinstance(token, Mapping):
        token = token.get("content")
    return token if isinstance(token, str) else None


def _backend(folder: Path, config: Mapping[str, Any], special_tokens: Sequence[str]) -> Tokenizer:
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise TrainerError(Reason.MODEL_UNUSABLE, "the base model has no tokenizer.json", _NO_TOKENIZER_STEP)
    try:
        backend = Tokenizer.from_file(str(path))
    except Exception as error:  # noqa: BLE001 - the Rust side raises plain Exception
        why = lfs.problem(path) if lfs.is_pointer(path) else error
        message = f"tokenizer.json of the base model cannot be read: {why}"
        raise TrainerError(Reason.MODEL_UNUSABLE, message[:500], _NO_TOKENIZER_STEP) from None
    known = {token.content for token in backend.get_added_tokens_decoder().values()}
    has_later = "added_tokens_decoder" in config
    added = _added_tokens(config) if has_later else _added_by_old_file(folder, special_tokens)
    backend.add_tokens([token for token in added if token.content not in known])
    known |= {token.content for token in added}
    missing = dict.fromkeys(token for token in special_tokens if token not in known)
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in missing])
    return backend


def _added_tokens(config: Mapping[str, Any]) -> list[AddedToken]:
    """Tokens that tokenizer_config.json adds, ordered by id."""
    added = config.get("added_tokens_decoder")
    try:
        by_id = sorted(added.items(), key=lambda item: int(item[0])) if isinstance(added, Mapping) else []
        return [AddedToken(**token) for _, token in by_id]
    except (TypeError, ValueError) as error:
        message = "tokenizer_config.json of the base model cannot be read: added_tokens_decoder"
        raise TrainerError(Reason.MODEL_UNUSABLE, message) from error


def _added_by_old_file(folder: Path, special_tokens: Collection[str]) -> list[AddedToken]:
    """Tokens that an older added_tokens.json adds, ordered by id."""
    ids = _object(folder / "added_tokens.json")
    tokens = sorted((token for token, number in ids.items() if isinstance(number, int)), key=ids.__getitem__)
    return [AddedToken(one, special=one in special_tokens, normalized=one not in special_tokens) for one in tokens]


def _plain_template(backend: Tokenizer, special_tokens: Mapping[str, str]) -> str:
    """PLAIN_TEMPLATE, preceded by the begin-of-sequence token if the tokenizer itself would add it."""
    bos = special_tokens.get("bos_token")
    ids = backend.encode("a", add_special_tokens=True).ids
    leads = bos is not None and ids and ids[0] == backend.token_to_id(bos)
    return "{{ bos_token }}" + PLAIN_TEMPLATE if leads else PLAIN_TEMPLATE
