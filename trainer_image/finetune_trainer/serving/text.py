"""From tokens to text while they come: detokenising step by step, and stop sequences that may span tokens.

It knows nothing of models or requests.
"""

from collections.abc import Callable, Sequence

Decode = Callable[[Sequence[int]], str]
BROKEN = "\N{REPLACEMENT CHARACTER}"
"""What a decoder shows for bytes that are no whole character yet."""
_CONTEXT = 6  # tokens before the answer that decide whether its first word starts with a space


class Detokenizer:
    """Text of a growing list of tokens, such that the pieces put together are the text of the whole.

    A token's text depends on its neighbours (spaces, bytes of one character), so each step decodes a short window
    twice, without and with the new token, and takes the difference.
    """

    def __init__(self, decode: Decode, prompt: Sequence[int] = ()) -> None:
        self._decode = decode
        self._tokens = list(prompt[-_CONTEXT:])
        self._start = 0
        self._done = len(self._tokens)

    def add(self, token: int) -> str:
        """The text that `token` completes; empty while a character lacks bytes."""
        self._tokens.append(token)
        before, now = self._window()
        if len(now) <= len(before) or now.endswith(BROKEN):
            return ""
        self._start, self._done = self._done, len(self._tokens)
        return now[len(before) :]

    def end(self) -> str:
        """What is left: bytes that never became a character."""
        before, now = self._window()
        self._start = self._done = len(self._tokens)
        return now[len(before) :]

    def _window(self) -> tuple[str, str]:
        return self._decode(self._tokens[self._start : self._done]), self._decode(self._tokens[self._start :])


class StopSequences:
    """Holds back text that might be the start of a stop sequence, and cuts at the first one."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = [stop for stop in stops if stop]
        self._held = ""
        self.hit = False

    def add(self, text: str) -> str:
        """The part of all text so far that may be shown now; after `hit` nothing more."""
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
        """What was held back and became no stop sequence."""
        shown, self._held = self._held, ""
        return shown


class Opening:
    """Holds tokens back that may be what a chat template writes before an answer, and drops them where they are."""

    def __init__(self, tokens: Sequence[int]) -> None:
        self._awaited = list(tokens)
        self._held: list[int] = []
        self.was_there = False

    def add(self, token: int) -> list[int]:
        """The answer's own tokens that can be shown after `token`."""
        self._held.append(token)
        if self._held != self._awaited[: len(self._held)]:
            return self.end()
        if self._held == self._awaited:
            self.was_there, self._held, self._awaited = True, [], []
        return []

    def end(self) -> list[int]:
        """What was held back and became no opening; no other one is awaited."""
        shown, self._held, self._awaited = self._held, [], []
        return shown


class TextStream:
    """One answer's text: detokenised, without its template's opening, and cut at its stop sequences."""

    def __init__(
        self, decode: Decode, prompt: Sequence[int], stops: Sequence[str], opening: Sequence[int] = ()
    ) -> None:
        self._detokenizer = Detokenizer(decode, prompt)
        self._opening = Opening(opening)
        self._stops = StopSequences(stops)
        self._begun = False

    @property
    def in_opening(self) -> bool:
        """Whether all tokens so far were the template's own, or white space behind them."""
        return self._opening.was_there and not self._begun

    @property
    def stopped(self) -> bool:
        """Whether a stop sequence was met."""
        return self._stops.hit

    def add(self, token: int) -> str:
        """The text that can be shown after `token`."""
        return self._stops.add(self._text(self._opening.add(token)))

    def end(self) -> str:
        """The rest, when no more tokens come."""
        left = self._text(self._opening.end()) + self._detokenizer.end()
        return self._stops.add(left) + self._stops.end()

    def _text(self, tokens: Sequence[int]) -> str:
        text = "".join([self._detokenizer.add(token) for token in tokens])
        if self.in_opening:
            text = text.lstrip()
        self._begun = self._begun or bool(text)
        return text


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that is a proper beginning of `stop`."""
    longest = min(len(text), len(stop) - 1)
    return next((size for size in range(longest, 0, -1) if stop.startswith(text[-size:])), 0)
