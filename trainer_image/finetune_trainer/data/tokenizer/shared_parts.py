"""Texts that begin alike, or have parts in common, are tokenised once for each part.

A row is tokenised as a whole and up to each of its answers: that is most of it twice. Special tokens part a text before
anything else is done with it, and what stands between two of them is tokenised by itself. So the tokens of a text are
those of its parts, and a part that many texts have is tokenised once for all that are looked at together.
"""

import re
from collections.abc import Iterable, Mapping, Sequence

from finetune_trainer.data.tokenizer.chat_tokenizer import ChatTokenizer


class SharedParts:
    """Token ids of texts by their parts, where the tokenizer allows it. The first texts are tokenised whole, too."""

    def __init__(self, tokenizer: ChatTokenizer) -> None:
        self._tokenizer = tokenizer
        self._marks = marks(tokenizer)
        self._mark = mark_pattern(self._marks)
        self._proven = False

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Of each text, as `ChatTokenizer.ids` gives them."""
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
    """The tokens that part every text, with their ids; none where what stands beside them matters to the tokenizer.

    They are all that are found before the text is normalised. None may take white space or want a word's end beside
    it, and the tokenizer may not treat the beginning of a text unlike the rest.
    """
    backend = tokenizer.backend
    added = backend.get_added_tokens_decoder()
    found = {token.content: [number] for number, token in added.items() if token.content and not token.normalized}
    greedy = any(token.lstrip or token.rstrip or token.single_word for token in added.values())
    knows_first = backend.pre_tokenizer is not None and b'"first"' in backend.pre_tokenizer.__getstate__()
    return {} if greedy or knows_first or backend.encode_special_tokens or tokenizer.encoder_decoder else found


def mark_pattern(known: Iterable[str]) -> re.Pattern[str]:
    """Finds such tokens as the tokenizer does: the first, and of those that begin there the longest."""
    return re.compile(f"({'|'.join(map(re.escape, sorted(known, key=len, reverse=True)))})")


def stands_alone(mark: str, known: Iterable[str]) -> bool:
    """Whether a token is found wherever it stands: no other one, nor itself, can overlap it or hold it."""
    ends = [(mark[:size], mark[-size:]) for size in range(1, len(mark))]
    overlaps = any(one.endswith(start) or one.startswith(end) for one in known for start, end in ends)
    return not overlaps and not any(mark in one for one in known if one != mark)
