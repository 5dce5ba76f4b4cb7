"""Incremental detokenisation, and stop sequences that may span tokens.

Independent of models and requests.
"""

from collections.abc import Callable, Sequence

Decode = Callable[[Sequence[int]], str]
BROKEN = "\N{REPLACEMENT CHARACTER}"
"""What a decoder shows for an incomplete character."""
_CONTEXT = 6  # tokens before the answer that decide whether its first word starts with a space


class Detokenizer:
    """Turns a growing list of tokens into pieces of text whose concatenation is the text of the whole list.

    A token's text depends on its neighbours (spaces, bytes of one character), so each step decodes a short window
    twice, without and with the new token, and takes the difference.
    """

    def __init__(self, decode: Decode, prompt: Sequence[int] = ()) -> None:
        self._decode = decode
        self._tokens = list(prompt[-_CONTEXT:])
        self._start = 0
        self._done = len(self._tokens)

    def add(self, token: int) -> str:
        """The text completed by `token`; empty while bytes of a character are missing."""
        self._tokens.append(token)
        before, now = self._window()
        if len(now) <= len(before) or now.endswith(BROKEN):
            return ""
        self._start, self._done = self._done, len(self._tokens)
        return now[len(before) :]

    def end(self) -> str:
        """The remaining bytes that never became a character."""
        before, now = self._window()
        self._start = self._done = len(self._tokens)
        return now[len(before) :]

    def _window(self) -> tuple[str, str]:
        return self._decode(self._tokens[self._start : self._done]), self._decode(self._tokens[self._start :])


class StopSequences:
    """Withholds text that might start a stop sequence, and cuts at the first one."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = [stop for stop in stops if stop]
        self._held = ""
        self.hit = False

    def add(self, text: str) -> str:
        """The text that may be shown now; nothing more after `hit`."""
        if self.hit:
            return ""
        self._held += text
        found = [at for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if found:
            self.hit = True
            shown, self._held = self._held[: min(found)], ""
            return shown
        keep = max((_overlap(self._held, stop) for stop in self._stops), default=0)
        cut = len(self._held) - keep
        shown, self._held = self._held[:cut], self._held[cut:]
        return shown

    def end(self) -> str:
        """Withheld text that did not become a stop sequence."""
        shown, self._held = self._held, ""
        return shown


class Opening:
    """Withholds tokens that may be the chat template's insertion before an answer, and drops them if they are."""

    def __init__(self, tokens: Sequence[int]) -> None:
        self._expected = list(tokens)
        self._held: list[int] = []
        self.was_found = False

    def add(self, token: int) -> list[int]:
        """The answer's own tokens that can be shown after `token`."""
        self._held.append(token)
        if self._held != self._expected[: len(self._held)]:
            return self.end()
        if self._held == self._expected:
            self.was_found, self._held, self._expected = True, [], []
        return []

    def end(self) -> list[int]:
        """Withheld tokens that are not the opening, which is not expected any more."""
        shown, self._held, self._expected = self._held, [], []
        return shown


class TextStream:
    """One answer's text: detokenised, without the template's opening, and cut at stop sequences."""

    def __init__(
        self, decode: Decode, prompt: Sequence[int], stops: Sequence[str], opening: Sequence[int] = ()
    ) -> None:
        self._detokenizer = Detokenizer(decode, prompt)
        self._opening = Opening(opening)
        self._stops = StopSequences(stops)
        self._begun = False

    @property
    def in_opening(self) -> bool:
        """Whether all tokens so far are the template's own, or whitespace after them."""
        return self._opening.was_found and not self._begun

    @property
    def stopped(self) -> bool:
        """Whether a stop sequence was found."""
        return self._stops.hit

    def add(self, token: int) -> str:
        """The text that can be shown after `token`."""
        return self._stops.add(self._text(self._opening.add(token)))

    def end(self) -> str:
        """The remaining text after the last token."""
        left = self._text(self._opening.end()) + self._detokenizer.end()
        return self._stops.add(left) + self._stops.end()

    def _text(self, tokens: Sequence[int]) -> str:
        text = "".join([self._detokenizer.add(token) for token in tokens])
        if self.in_opening:
            text = text.lstrip()
        self._begun = self._begun or bool(text)
        return text


def _overlap(text: str, stop: str) -> int:
    """Length of the longest suffix of `text` that is a proper prefix of `stop`."""
    longest = min(len(text), len(stop) - 1)
    return next((size for size in range(longest, 0, -1) if stop.startswith(text[-size:])), 0)
