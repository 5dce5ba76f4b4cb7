"""One thread that owns the model: takes requests from a bounded queue and generates their answers together.

Independent of HTTP: requests are `Ask`s, answers go to their `tell`, called from this thread.
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
_GIVE_UP_AFTER = 3  # consecutive failures of the model after which the engine is broken
_AHEAD = 256  # a row is admitted if all rows have room for this many more tokens, or until their end


@dataclass(frozen=True)
class Capacity:
    """Limits of the engine."""

    rows: int
    """Maximum generations in a batch."""
    tokens: int
    """Maximum positions in the cache: rows times the longest row. A single row is always admitted."""
    waiting: int
    """Maximum generations in the queue."""


Generations = Batch | Seq2SeqBatch
"""The batches that the engine can drive: causal models, and encoder-decoders."""


class Engine:
    """Queue, thread and rows. `decode` turns tokens into text; `ends` are the tokens that end an answer.

    The length of an answer is unknown, so no cache is reserved for it. If rows outgrow the cache, the youngest returns
    to the head of the queue and is later read again with its answer so far; the oldest always continues.
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
        """Number of generations in the queue."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """Number of generations in the batch."""
        return self._running

    @property
    def is_broken(self) -> bool:
        """Whether the model failed so often in a row that only a restart can help."""
        return self._failures >= _GIVE_UP_AFTER or (self._thread.ident is not None and not self._thread.is_alive())

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self, timeout: float | None = None) -> None:
        """Stop the thread after its current step; unfinished generations fail."""
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
            except Exception:  # noqa: BLE001 - a model's exception must not affect later requests
                _log.exception("the model failed; its requests are refused")
                self._failures += 1
                self._fail_all()
        self._fail_all()

    def _wait_for_work(self) -> bool:
        with self._work:
            self._work.wait_for(lambda: self._closed or self._waiting or self._batch.rows)
            return not self._closed

    def _turn(self) -> None:
        """Admit new rows, read a portion of a prompt, and generate a token for each running row."""
        self._drop_cancelled()
        self._make_room()
        self._admit()
        first = self._batch.read()
        if first:
            self._send([first])
        self._send(self._batch.step())

    def _drop_cancelled(self) -> None:
        self._drop([row for row in self._batch.rows if row.ask.cancelled])
        with self._work:
            for row in [row for row in self._waiting if row.ask.cancelled]:
                self._waiting.remove(row)
                self._texts.pop(row, None)

    def _make_room(self) -> None:
        """Return the youngest rows to the queue until the others fit for the next step."""
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
        """Whether all rows could grow for a while if this one is admitted."""
        rows = [*self._batch.rows, row]
        longest = max(one.tokens + min(one.left, _AHEAD) for one in rows)
        return len(rows) == 1 or (len(rows) <= self._capacity.rows and len(rows) * longest <= self._capacity.tokens)

    def _send(self, rows: Sequence[Row]) -> None:
        """Send each row's newest token, and drop rows that ended."""
        ended = [row for row in rows if self._send_newest(row)]
        self._drop(ended)

    def _send_newest(self, row: Row) -> bool:
        """Send a row's newest token; returns whether the row has ended."""
        text, count = self._texts[row], len(row.generated)
        ended = row.generated[-1] in self._ends
        shown = "" if ended else text.add(row.generated[-1])
        if ended and row.unsent:
            row.unsent.pop()  # the token that ends an answer does not belong to its text
        if text.in_opening:
            row.unsent.clear()
        finish: FinishReason | None = "stop" if ended or text.stopped else None
        if finish is None and count >= row.ask.max_tokens:
            finish = "length"
        if finish and not text.stopped:
            shown += text.end()
            finish = "stop" if text.stopped else finish
        if shown or finish:
            _send_safely(row.ask.tell, Piece(shown, count, tuple(row.unsent), finish))
            row.unsent.clear()
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
            _send_safely(row.ask.tell, Piece(failed=True))


def _send_safely(tell: Callable[[Piece], None], piece: Piece) -> None:
    try:
        tell(piece)
    except RuntimeError:  # the listener's event loop is closed: the client left
        _log.debug("nobody listens to a generation any more")
