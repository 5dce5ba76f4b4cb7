"""Texts with a common beginning or other common parts: each part is tokenized once.

A row is tokenized as a whole and up to each of its answers, so most of it twice. Tokenizers split text at special
tokens first and encode what is between them independently. So the tokens of a text are those of its parts, and a part
that occurs in many texts of a batch is encoded once.
"""

import re
from collections.abc import Iterable, Mapping, Sequence

from finetune_trainer.data.tokenizer.chat_tokenizer import ChatTokenizer


class SharedParts:
    """Encodes texts part by part, if the tokenizer allows it. The first batch is compared with encoding texts whole."""

    def __init__(self, tokenizer: ChatTokenizer) -> None:
        self._tokenizer = tokenizer
        self._marks = marks(tokenizer)
        self._mark = mark_pattern(self._marks)
        self._proven = False

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, as from `ChatTokenizer.ids`."""
        if not self._marks:
            return self._tokenizer.ids(texts)
        found = self._by_parts(texts)
        if not self._proven:
            whole = self._tokenizer.ids(texts)
            self._proven = found == whole
            self._marks = self._marks if self._proven else {}
            return whole
        return found

    def _by_parts(self, texts: Sequence[str]) -> list[list[int]]:
        split = [self._mark.split(text) for text in texts]
        new: dict[str, None] = {}
        for pieces in split:
            new |= dict.fromkeys(pieces[::2])
        new.pop("", None)
        parts = list(new)
        known = self._marks | {"": []} | dict(zip(parts, self._tokenizer.ids(parts), strict=True))
        return [_joined(pieces, known) for pieces in split]


def _joined(pieces: list[str], known: Mapping[str, list[int]]) -> list[int]:
    ids: list[int] = []
    for piece in pieces:
        ids += known[piece]
    return ids


def marks(tokenizer: ChatTokenizer) -> dict[str, list[int]]:
    """The tokens that split every text, with their ids; none if encoding depends on what is next to them.

    They are all added tokens that are found before normalization. None of them may strip white space or require a word
    boundary, and the tokenizer may not treat the start of a text specially.
    """
    backend = tokenizer.backend
    added = backend.get_added_tokens_decoder()
    found = {token.content: [number] for number, token in added.items() if token.content and not token.normalized}
    greedy = any(token.lstrip or token.rstrip or token.single_word for token in added.values())
    knows_first = backend.pre_tokenizer is not None and b'"first"' in backend.pre_tokenizer.__getstate__()
    return {} if greedy or knows_first or backend.encode_special_tokens or tokenizer.encoder_decoder else found


def mark_pattern(known: Iterable[str]) -> re.Pattern[str]:
    """Finds such tokens as the tokenizer does: the leftmost, and of several there the longest."""
    return re.compile(f"({'|'.join(map(re.escape, sorted(known, key=len, reverse=True)))})")


def stands_alone(mark: str, known: Iterable[str]) -> bool:
    """Whether a token is found wherever it occurs: no token, including itself, can overlap or contain it."""
    ends = [(mark[:size], mark[-size:]) for size in range(1, len(mark))]
    overlaps = any(one.endswith(start) or one.startswith(end) for one in known for start, end in ends)
    return not overlaps and not any(mark in one for one in known if one != mark)
