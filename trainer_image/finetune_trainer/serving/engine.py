"""One thread that owns the model: takes requests from a bounded queue and lets them grow together.

It knows no HTTP: requests come as `Ask`s, answers go out by their `tell`, called from this thread.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from finetune_trainer.serving.asks import Ask, FinishReason, Piece, QueueFullError
from finetune_trainer.serving.batch import Batch, Row, row_of
from finetune_trainer.serving.seq2seq_batch import Seq2SeqBatch
from finetune_trainer.serving.text import Decode, TextStream

_log = logging.getLogger(__name__)
_GIVE_UP_AFTER = 3  # failures of the model in a row, after which the engine calls itself broken
_AHEAD = 256  # tokens that every row has room for when another one is let in, unless it ends before


@dataclass(frozen=True)
class Capacity:
    """What the engine takes on at once."""

    rows: int
    """Generations that grow together."""
    tokens: int
    """Positions in the cache: rows times the longest of them. One row alone is always let in."""
    waiting: int
    """Generations that may wait."""


Generations = Batch | Seq2SeqBatch
"""What the engine drives: causal models, and encoder-decoders."""


class Engine:
    """The queue, the thread and the rows. `decode` turns tokens into text; `ends` are tokens that end an answer.

    How long an answer will be nobody knows, so no room is kept for all of it. Where rows outgrow the cache the youngest
    goes back to the head of the queue, and is read again with its answer so far; the oldest always goes on.
    """

    def __init__(self, batch: Generations, *, decode: Decode, ends: frozenset[int], capacity: Capacity) -> None:
        self._batch = batch
        self._decode = decode
        self._ends = ends
        self._capacity = capacity
        self._waiting: deque[Row] = deque()
        self._texts: dict[Row, TextStream] = {}
        self._work = threading.Condition()
        self._closed = False
        self._failures = 0
        self._running = 0
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    @property
    def waiting(self) -> int:
        """Generations in the queue."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """Generations in the model's hands."""
        return self._running

    @property
    def is_broken(self) -> bool:
        """Whether the model failed so often in a row that only a new process can help."""
        return self._failures >= _GIVE_UP_AFTER or (self._thread.ident is not None and not self._thread.is_alive())

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self, timeout: float | None = None) -> None:
        """End the thread after its current step; what is unfinished is told that it failed."""
        with self._work:
            self._closed = True
            self._work.notify()
        self._thread.join(timeout)

    def submit(self, asks: Sequence[Ask]) -> None:
        """Queue all of these generations, or none.

        Raises:
            QueueFullError: there is no room for all of them.
        """
        with self._work:
            if self._closed or len(self._waiting) + len(asks) > max(self._capacity.waiting, len(asks)):
                raise QueueFullError(len(self._waiting))
            self._waiting.extend(map(row_of, asks))
            self._work.notify()

    def _run(self) -> None:
        while self._wait_for_work():
            try:
                self._turn()
                self._failures = 0
            except Exception:  # noqa: BLE001 - whatever a model raises, the next request shall be answered
                _log.exception("the model failed; its requests are refused")
                self._failures += 1
                self._fail_all()
        self._fail_all()

    def _wait_for_work(self) -> bool:
        with self._work:
            self._work.wait_for(lambda: self._closed or self._waiting or self._batch.rows)
            return not self._closed

    def _turn(self) -> None:
        """Let new rows in, read a portion of a prompt, and give each running row a token."""
        self._drop_cancelled()
        self._make_room()
        self._admit()
        first = self._batch.read()
        if first:
            self._tell([first])
        self._tell(self._batch.step())

    def _drop_cancelled(self) -> None:
        self._drop([row for row in self._batch.rows if row.ask.cancelled])
        with self._work:
            for row in [row for row in self._waiting if row.ask.cancelled]:
                self._waiting.remove(row)
                self._texts.pop(row, None)

    def _make_room(self) -> None:
        """Put the youngest rows back until the others have room after the next step."""
        rows = self._batch.rows
        staying = list(rows)
        while len(staying) > 1 and len(staying) * max(row.tokens for row in staying) > self._capacity.tokens:
            staying.pop()
        back = rows[len(staying) :]
        if back:
            self._batch.drop(back)
            with self._work:
                self._waiting.extendleft(reversed(back))

    def _admit(self) -> None:
        with self._work:
            if self._batch.is_reading or not self._waiting or not self._has_room(self._waiting[0]):
                return
            row = self._waiting.popleft()
        self._batch.start(row)
        ask = row.ask
        if row not in self._texts:
            before = ask.prompt if ask.continues_prompt else ()
            self._texts[row] = TextStream(self._decode, before, ask.stops, ask.opening)
        self._running = len(self._batch.rows)

    def _has_room(self, row: Row) -> bool:
        """Whether all rows could grow for a while with this one beside them."""
        rows = [*self._batch.rows, row]
        longest = max(one.tokens + min(one.left, _AHEAD) for one in rows)
        return len(rows) == 1 or (len(rows) <= self._capacity.rows and len(rows) * longest <= self._capacity.tokens)

    def _tell(self, rows: Sequence[Row]) -> None:
        """Pass on what each row's newest token brought."""
        ended = [row for row in rows if self._pass_on(row)]
        self._drop(ended)

    def _pass_on(self, row: Row) -> bool:
        """Tell a row's listener of its newest token; True when the row is at its end."""
        text, count = self._texts[row], len(row.generated)
        ended = row.generated[-1] in self._ends
        shown = "" if ended else text.add(row.generated[-1])
        if ended and row.untold:
            row.untold.pop()  # the token that ends an answer is no part of its text
        if text.in_opening:
            row.untold.clear()
        finish: FinishReason | None = "stop" if ended or text.stopped else None
        if finish is None and count >= row.ask.max_tokens:
            finish = "length"
        if finish and not text.stopped:
            shown += text.end()
            finish = "stop" if text.stopped else finish
        if shown or finish:
            _tell_safely(row.ask.tell, Piece(shown, count, tuple(row.untold), finish))
            row.untold.clear()
        return finish is not None

    def _drop(self, rows: Sequence[Row]) -> None:
        if not rows:
            return
        self._batch.drop(rows)
        for row in rows:
            del self._texts[row]
        self._running = len(self._batch.rows)

    def _fail_all(self) -> None:
        rows = self._batch.rows
        self._batch.clear()
        self._running = 0
        with self._work:
            if self._closed:
                rows.extend(self._waiting)
                self._waiting.clear()
        for row in rows:
            self._texts.pop(row, None)
            _tell_safely(row.ask.tell, Piece(failed=True))


def _tell_safely(tell: Callable[[Piece], None], piece: Piece) -> None:
    try:
        tell(piece)
    except RuntimeError:  # the listener's event loop is gone; nobody waits for the answer
        _log.debug("nobody listens to a generation any more")
