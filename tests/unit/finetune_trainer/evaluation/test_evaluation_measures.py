"""Each metric as its source defines it, on answers of every kind."""

import math

import pytest

from finetune_api.evaluation import METRICS
from finetune_trainer.evaluation.measures import LOOKED_AT, MEASURES, is_unfinished_thought, shortened

DEEP = "[" * 1000 + "]" * 1000
WIDE = "[" * 800 + "1," * 20_000 + "1" + "]" * 800
"""Paths to its fields, written out, would take 128 MB."""


@pytest.mark.parametrize(
    ("metric", "answer", "completion", "value"),
    [
        ("exactMatch", " red\n", "red", 1),
        ("exactMatch", "Red", "red", 0),
        ("exactMatch", "", "red", 0),
        # SQuAD's evaluation: articles, punctuation and case do not count, words do, as often as they stand there.
        ("tokenF1", "The cat!", "a cat", 1),
        ("tokenF1", "the big cat", "the cat", 2 / 3),
        ("tokenF1", "cat cat dog", "cat dog dog", 2 / 3),
        ("tokenF1", "dog", "cat", 0),
        ("tokenF1", "", "cat", 0),
        ("tokenF1", "the", "a", 1),
        ("tokenF1", "theatre", "atre", 0),
        # Lin 2004, section 3.1.
        ("rougeL", "police kill the gunman", "police killed the gunman", 0.75),
        ("rougeL", "the gunman kill police", "police killed the gunman", 0.5),
        ("rougeL", "the gunman police killed", "police killed the gunman", 0.5),
        ("rougeL", "read_the_file(name)", "read_the_line(name)", 3 / 4),
        ("rougeL", "Grün, und blau", "grün und blau", 1),
        ("rougeL", "猫", "犬", 0),
        # Google's script finds no words here at all. Chinese is taken letter by letter, marks belong to their letters.
        ("rougeL", "今天天气很好", "今天天气不好。", 5 / 6),
        ("rougeL", "すし2026年", "すし 2026年", 1),
        ("rougeL", "नमस्ते दुनिया", "नमस्ते", 2 / 3),
        ("rougeL", "नमसते", "नमस्ते", 0),
        ("rougeL", "שלום עולם", "שלום", 2 / 3),
        ("rougeL", "!", "?", 0),
        ("rougeL", "🙂", "🙃", 0),
        ("rougeL", " 🙂", "🙂\n", 1),
        ("rougeL", "", "word", 0),
        ("chrF", "the cat sat", "the cat sat", 1),
        ("chrF", "xyz", "abc", 0),
        ("jsonValid", '{"a": [1, null]}', "", 1),
        ("jsonValid", " 5 ", "", 1),
        ("jsonValid", '```json\n{"a": 1}\n```', "", 0),
        ("jsonValid", '{"a": NaN}', "", 0),
        ("jsonValid", "{'a': 1}", "", 0),
        ("jsonValid", "[-Infinity]", "", 0),
        ("jsonValid", '{"a": 1, "a": 2}', "", 1),
        ("jsonValid", r'"\ud800"', "", 1),  # RFC 8259, section 8.2: its grammar allows it
        ("jsonValid", "1" * 400, "", 1),
        ("jsonValid", '"a\tb"', "", 0),
        ("jsonFields", '{"a": 1, "a": 2}', '{"a": 2}', 1),
        ("jsonFields", '{"a": 1}', '{"a": 1, "a": 2}', 0),
        ("jsonFields", '{"id": 123456789012345678901}', '{"id": 123456789012345678902}', 0),
        ("jsonFields", '{"id": 123456789012345678901}', '{"id": 123456789012345678901}', 1),
        ("jsonFields", "[2, 1]", "[1, 2]", 0),
        ("jsonFields", "1" * 5000, "1" * 5000, 1),
        ("jsonFields", "1" * 5000, '"' + "1" * 5000 + '"', 0),
        ("jsonFields", '{"a": "1"}', '{"a": 1}', 0),
        ("jsonValid", "", "", 0),
        ("jsonFields", '{"b": 2.0, "a": 1}', '{"a": 1, "b": 2}', 1),
        ("jsonFields", '{"a": 1}', '{"a": 1, "b": 2}', 1 / 2),
        ("jsonFields", '{"a": 1, "b": 2, "c": 3}', '{"a": 1, "b": 2}', 2 / 3),
        ("jsonFields", '{"a": {"b": [1, 2]}, "c": []}', '{"a": {"b": [1, 3]}, "c": []}', 2 / 3),
        ("jsonFields", '{"a": {}}', '{"a": {}}', 1),
        ("jsonFields", '{"a": []}', '{"a": {}}', 0),
        ("jsonFields", '{"a": true}', '{"a": 1}', 0),
        ("jsonFields", "null", "null", 1),
        ("jsonFields", "no JSON", '{"a": 1}', 0),
        ("jsonFields", '{"a": 1}', "no JSON", None),
        ("jsonFields", '{"a": {"b": 1, "c": [2]}}', '{"a": 7, "d": {"e": 1}}', 0),
        ("jsonFields", '{"0": 1}', "[1]", 0),
        ("jsonFields", '{"a": [], "b": 1}', '{"a": "x", "b": 1}', 1 / 2),
        ("jsonFields", WIDE, WIDE, 1),
        ("jsonFields", WIDE, '{"a": 1}', 0),
        ("jsonFields", DEEP, '{"a": 1}', 0),
        ("jsonValid", "[" * 100_000, "", 0),
    ],
)
def test_a_metric_is_as_its_source_defines_it(metric, answer, completion, value):
    found = MEASURES[metric](answer, completion)
    assert found == value if value is None else math.isclose(found, value)


def test_chr_f_is_that_of_sacrebleu():
    from sacrebleu import sentence_chrf

    found = MEASURES["chrF"]("the cat sat on a mat", "a cat sat on the mat")
    assert found == pytest.approx(sentence_chrf("the cat sat on a mat", ["a cat sat on the mat"]).score / 100)
    assert 0.5 < found < 1


def test_every_metric_of_the_api_is_there():
    assert set(MEASURES) == set(METRICS)


@pytest.mark.parametrize(
    ("text", "unfinished"),
    [
        ("<think>\nit may be", True),
        ("  <think>", True),
        ("<think>so</think>red", False),
        ("<think></think>", False),
        ("red", False),
        ("red, as <think> says", False),
    ],
)
def test_a_thought_that_was_cut_is_told_from_one_that_ended(text, unfinished):
    assert is_unfinished_thought(text) is unfinished


@pytest.mark.parametrize(("metric", "most"), [("rougeL", "天"), ("rougeL", "word "), ("chrF", "a")])
def test_of_very_long_texts_the_beginnings_are_compared_and_that_is_told(metric, most):
    """Time grows with the product of both lengths, or with memory for each of millions of parts."""
    limit = int(LOOKED_AT[metric].split()[0].replace(",", ""))
    whole = (most * limit).strip()
    assert not shortened(metric, whole, most)
    assert MEASURES[metric](whole, whole + " other" * 100) == pytest.approx(1)
    for longer in ((whole + " " + most, "a"), ("a", whole + " " + most)):
        assert shortened(metric, *longer)
    assert not shortened("tokenF1", whole + " " + most, "a")
