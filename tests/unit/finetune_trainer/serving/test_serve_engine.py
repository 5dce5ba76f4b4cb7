"""The queue and the thread: rows share steps, the queue is bounded, leavers and failures take nobody with them."""

import queue
import threading

import pytest
import torch

from finetune_trainer.serving import engine as engines
from finetune_trainer.serving.asks import Ask, QueueFullError, Sampling
from finetune_trainer.serving.batch import Batch
from finetune_trainer.serving.engine import Capacity, Engine
from tests.unit.finetune_trainer.waiting import wait_until


class GatedBatch(Batch):
    """A batch whose steps wait for the test, and which remembers how many rows each had."""

    def __init__(self, model):
        super().__init__(model, can_join=True)
        self.gate = threading.Event()
        self.gate.set()
        self.sizes = []
        self.stops_after = None
        self.poison = None

    def step(self):
        assert self.gate.wait(10)
        rows = super().step()
        if len(self.sizes) + 1 == self.stops_after:
            self.gate.clear()
        self.sizes.append(len(rows))
        return rows

    def read(self):
        if self.poison and any(row.ask.prompt == self.poison for row in self.rows):
            raise RuntimeError("the kernel does not like this one")
        return super().read()


@pytest.fixture(scope="module")
def model():
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=128, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=4096, initializer_range=0.5,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


@pytest.fixture
def make_engine(model):
    engines = []

    def make(**capacity):
        batch = GatedBatch(model)
        limits = Capacity(**{"rows": 8, "tokens": 10_000, "waiting": 4} | capacity)
        engine = Engine(batch, decode=lambda tokens: "".join(map(chr, tokens)), ends=frozenset(), capacity=limits)
        engines.append((engine, batch))
        engine.start()
        return engine, batch

    yield make
    for engine, batch in engines:
        batch.gate.set()
        engine.close(timeout=10)


def ask(prompt=(1, 2), count=5):
    heard = queue.SimpleQueue()
    return Ask(tuple(prompt), count, tell=heard.put, sampling=Sampling(temperature=0)), heard


def pieces_of(heard):
    pieces = []
    while not pieces or not pieces[-1].is_last:
        pieces.append(heard.get(timeout=10))
    return pieces


def text_of(heard):
    pieces = pieces_of(heard)
    return "".join(piece.text for piece in pieces), pieces[-1]


def test_requests_that_come_together_share_their_steps(make_engine):
    engine, batch = make_engine()
    alone = []
    for start in range(4):
        one, heard = ask((start + 1,), 12)
        engine.submit([one])
        alone.append(text_of(heard)[0])
    batch.sizes.clear()
    asks = [ask((start + 1,), 12) for start in range(4)]
    engine.submit([one for one, _ in asks])
    assert [text_of(heard)[0] for _, heard in asks] == alone
    assert max(batch.sizes) == 4


def test_no_more_rows_grow_together_than_may(make_engine):
    engine, batch = make_engine(rows=2)
    asks = [ask((start + 1,), 6) for start in range(4)]
    engine.submit([one for one, _ in asks])
    assert [text_of(heard)[1].finish for _, heard in asks] == ["length"] * 4
    assert max(batch.sizes) == 2


def test_the_cache_holds_no_more_tokens_than_may_but_always_one_row(make_engine):
    engine, batch = make_engine(tokens=30)
    asks = [ask(range(1, 9), 7) for _ in range(3)]  # 15 tokens each
    long, heard = ask(range(1, 60), 7)
    engine.submit([one for one, _ in asks] + [long])
    for _, one in asks:
        assert text_of(one)[1].finish == "length"
    assert text_of(heard)[1].finish == "length"
    assert max(batch.sizes) == 2


def test_answers_of_unknown_length_do_not_wait_for_each_other(make_engine):
    engine, batch = make_engine(tokens=4096)
    asks = [ask((start + 1,), 4000)[0] for start in range(4)]
    engine.submit(asks)
    wait_until(lambda: batch.sizes[-1:] == [4])
    for one in asks:
        one.cancelled = True
    wait_until(lambda: engine.running == engine.waiting == 0)


def test_rows_that_outgrow_the_cache_wait_and_lose_nothing(make_engine, monkeypatch):
    monkeypatch.setattr(engines, "_AHEAD", 4)
    engine, batch = make_engine(tokens=60)
    alone = []
    for start in range(4):
        one, heard = ask((start + 1, 2), 40)
        engine.submit([one])
        alone.append(text_of(heard))
    batch.sizes.clear()
    asks = [ask((start + 1, 2), 40) for start in range(4)]
    engine.submit([one for one, _ in asks])
    assert [text_of(heard) for _, heard in asks] == alone
    assert set(batch.sizes) >= {1, 2, 3, 4}, "four began together, and the oldest went on alone"
    wait_until(lambda: engine.running == engine.waiting == 0)
    assert not engine._texts


def test_who_leaves_while_it_was_put_back_leaves_nothing(make_engine, monkeypatch):
    monkeypatch.setattr(engines, "_AHEAD", 4)
    engine, batch = make_engine(tokens=60)
    (first, _), (second, _) = ask((1, 2), 400), ask((3, 4), 400)
    engine.submit([first, second])
    wait_until(lambda: engine.waiting == 1 and batch.sizes[-1:] == [1])
    second.cancelled = True
    wait_until(lambda: engine.waiting == 0)
    assert len(engine._texts) == 1
    first.cancelled = True
    wait_until(lambda: engine.running == 0)
    assert not engine._texts


def test_a_full_queue_refuses_all_or_nothing(make_engine):
    engine, batch = make_engine(rows=1, waiting=3)
    batch.gate.clear()
    first, heard = ask()
    engine.submit([first])
    wait_until(lambda: engine.running == 1)
    engine.submit([ask()[0], ask()[0]])
    with pytest.raises(QueueFullError) as caught:
        engine.submit([ask()[0], ask()[0]])
    assert caught.value.waiting == engine.waiting == 2
    engine.submit([ask()[0]])
    batch.gate.set()
    assert text_of(heard)[1].tokens == 5
    wait_until(lambda: engine.waiting == engine.running == 0)


def test_cancelled_requests_make_room(make_engine):
    engine, batch = make_engine(rows=1)
    endless, _ = ask(count=4000)
    waiting, unheard = ask()
    last, heard = ask()
    batch.stops_after = 4
    engine.submit([endless, waiting, last])
    wait_until(lambda: len(batch.sizes) > 3)
    endless.cancelled = waiting.cancelled = True
    batch.gate.set()
    assert text_of(heard)[1].finish == "length"
    assert unheard.empty()
    assert len(batch.sizes) < 3000


def test_a_failure_of_the_model_ends_its_requests_and_no_others(make_engine):
    engine, batch = make_engine()
    batch.poison = (9, 9, 9)
    bad, heard = ask(batch.poison)
    engine.submit([bad])
    assert text_of(heard)[1].failed
    good, heard = ask()
    engine.submit([good])
    assert text_of(heard)[1].finish == "length"
    assert not engine.is_broken


def test_an_engine_that_fails_three_times_in_a_row_is_broken(make_engine):
    engine, batch = make_engine()
    batch.poison = (9, 9, 9)
    for _ in range(3):
        assert not engine.is_broken
        bad, heard = ask(batch.poison)
        engine.submit([bad])
        assert text_of(heard)[1].failed
    wait_until(lambda: engine.is_broken)


def test_closing_tells_those_who_wait(make_engine):
    engine, batch = make_engine(rows=1)
    batch.gate.clear()
    running, heard = ask(count=4000)
    waiting, heard_too = ask()
    engine.submit([running, waiting])
    wait_until(lambda: engine.running == 1)
    closing = threading.Thread(target=engine.close)
    closing.start()
    batch.gate.set()
    closing.join(10)
    assert text_of(heard)[1].failed
    assert text_of(heard_too)[1].failed
    with pytest.raises(QueueFullError):
        engine.submit([ask()[0]])


def test_an_answer_begins_behind_what_its_template_writes_and_so_do_its_likelihoods(make_engine):
    engine, _ = make_engine()
    whole, heard = ask(count=6)
    whole.likeliest = 0
    engine.submit([whole])
    said = pieces_of(heard)
    tokens = [one.token for piece in said for one in piece.likelihoods]
    assert len(tokens) == 6
    opened, heard = ask(count=6)
    opened.likeliest, opened.opening = 0, tuple(tokens[:2])
    engine.submit([opened])
    said = pieces_of(heard)
    assert [one.token for piece in said for one in piece.likelihoods] == tokens[2:]
    assert "".join(piece.text for piece in said) == "".join(map(chr, tokens[2:]))
    assert said[-1].tokens == 6
