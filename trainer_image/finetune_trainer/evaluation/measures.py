"""The metrics, each for one answer and one completion: 0 means nothing is right, 1 everything.

Surrounding whitespace never counts, nor do thoughts before the answer (`spoken`). Further normalisation is described
with each metric. Independent of models.
"""

import json
import re
import string
import sys
import unicodedata
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from functools import lru_cache
from typing import Any, NoReturn

import orjson

from finetune_api.evaluation import Metric

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
"""Scripts without spaces between words: each character counts as a word, as is usual for Chinese."""


_MOST_WORDS, _MOST_CHARACTERS = 20_000, 100_000
"""Limit of each text for metrics with superlinear running time: the rest is ignored."""

_THOUGHT, _END_OF_THOUGHT = "<think>", "</think>"


def spoken(text: str) -> str:
    """The answer after a thought. Templates of reasoning models insert an empty thought before an answer without one.

    Such a model learns to repeat it with the answer. An unfinished thought stays: it has no answer. Accents are
    composed with their letters (NFC): many tokenizers do so, and their models cannot produce the other form.
    """
    return unicodedata.normalize("NFC", text.rpartition(_END_OF_THOUGHT)[2].strip())


def is_unfinished_thought(text: str) -> bool:
    """Whether the token limit ended it before the answer began."""
    return text.lstrip().startswith(_THOUGHT) and _END_OF_THOUGHT not in text


def exact_match(answer: str, completion: str) -> float:
    """1 if both texts are equal."""
    return float(answer.strip() == completion.strip())


def token_f1(answer: str, completion: str) -> float:
    """Harmonic mean of precision and recall over words, counted with multiplicity.

    As in SQuAD's evaluation script (Rajpurkar et al. 2016, arXiv 1606.05250): lower case, without ASCII punctuation and
    without a, an, the; split at whitespace. If one of the two has no words left, 1 if both have none (SQuAD 2.0).
    """
    said, wanted = _squad_words(answer), _squad_words(completion)
    if not said or not wanted:
        return float(said == wanted)
    shared = (Counter(said) & Counter(wanted)).total()
    return 2 * shared / (len(said) + len(wanted))


def _squad_words(text: str) -> list[str]:
    return _ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split()


def rouge_l(answer: str, completion: str) -> float:
    """F1 of the longest common subsequence of words, ROUGE-L of Lin 2004 (aclanthology.org/W04-1013), beta 1.

    Words are runs of letters, their marks and digits of any script, in lower case, without stemming. Google's
    rouge-score knows only a-z and 0-9; on such texts both agree. Texts without words must be equal. Only the first
    _MOST_WORDS of each text count.
    """
    from rapidfuzz.distance import LCSseq

    said, wanted = (_words(text)[:_MOST_WORDS] for text in (answer, completion))
    if not said and not wanted:
        return exact_match(answer, completion)
    return 2 * LCSseq.similarity(said, wanted) / (len(said) + len(wanted))


def _words(text: str) -> list[str]:
    found: list[str] = _word().findall(text.lower())
    return found


@lru_cache(maxsize=1)
def _word() -> Any:
    import regex  # Python's re splits Hindi words at vowel signs

    return regex.compile(rf"[{_UNSPACED}]\p{{M}}*|[\w--_{_UNSPACED}]+", regex.VERSION1)


def chr_f(answer: str, completion: str) -> float:
    """Sentence-level chrF2 of sacrebleu (Popović 2015, aclanthology.org/W15-3049): 6-grams, beta 2, case counts.

    Only the first _MOST_CHARACTERS of each text count.
    """
    said, wanted = (text.strip()[:_MOST_CHARACTERS] for text in (answer, completion))
    return float(_chrf().sentence_score(said, [wanted]).score) / 100


@lru_cache(maxsize=1)
def _chrf() -> Any:
    from sacrebleu.metrics.chrf import CHRF

    return CHRF()


def json_valid(answer: str, completion: str) -> float:  # noqa: ARG001 - metrics share a signature
    """1 if the whole answer is one JSON value (RFC 8259), without a Markdown fence around it."""
    return float(_parsed(answer) is not None)


def json_fields(answer: str, completion: str) -> float | None:
    """Fraction of fields with the right value, among all fields of the completion or the answer.

    A field is a path to a scalar or to an empty object or list; numbers are compared as numbers. So a missing, wrong or
    invented field counts as wrong. None if the completion is not JSON: there are no fields.
    """
    wanted, said = _parsed(completion), _parsed(answer)
    if wanted is None:
        return None
    if said is None:
        return 0.0
    right = fields = 0
    left: list[tuple[Any, Any]] = [(wanted[0], said[0])]
    while left:  # no recursion: answers may be nested arbitrarily deep
        one, other = left.pop()
        parts, others = _parts(one), _parts(other)
        if parts is None and others is None:
            fields += 1
            right += _same(one, other)
        elif parts is None or others is None or type(one) is not type(other):
            fields += _fields_in(one) + _fields_in(other)
        else:
            left += ((parts[name], others[name]) for name in parts.keys() & others.keys())
            fields += sum(_fields_in(parts[name]) for name in parts.keys() - others.keys())
            fields += sum(_fields_in(others[name]) for name in others.keys() - parts.keys())
    return right / fields


def _parsed(text: str) -> tuple[Any] | None:
    """The JSON value in a tuple, since it may be null; None if it is not JSON.

    Parsed by Python: integers keep all their digits, and of a repeated key the last value counts. Its depth is limited
    by Python's stack; deeper values are parsed by orjson, which has a limit too.
    """
    text = text.strip()
    try:
        return (json.loads(text, parse_constant=_no_constant, parse_int=_whole),)
    except ValueError:
        return None
    except RecursionError:
        return _parsed_deep(text)


def _whole(digits: str) -> int | Decimal:
    """Keeps all digits, even if they are more than Python converts to an int."""
    return int(digits) if len(digits) < sys.int_info.default_max_str_digits else Decimal(digits)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _parsed_deep(text: str) -> tuple[Any] | None:
    try:
        return (orjson.loads(text),)
    except ValueError:
        return None


def _parts(value: Any) -> dict[str | int, Any] | None:
    """The items of an object or a list by key or index; None for a field."""
    if isinstance(value, dict) and value:
        return value
    return dict(enumerate(value)) if isinstance(value, list) and value else None


def _fields_in(value: Any) -> int:
    """Number of fields in a value, which may itself be one."""
    left, found = [value], 0
    while left:
        parts = _parts(left.pop())
        found += parts is None
        left += parts.values() if parts else ()
    return found


def _same(one: Any, other: Any) -> bool:
    """Equal, without treating true as 1."""
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


MEASURES: dict[Metric, Callable[[str, str], float | None]] = {
    "exactMatch": exact_match,
    "tokenF1": token_f1,
    "rougeL": rouge_l,
    "chrF": chr_f,
    "jsonValid": json_valid,
    "jsonFields": json_fields,
}


def shortened(metric: Metric, answer: str, completion: str) -> bool:
    """Whether one of the texts is longer than what the metric reads."""
    if metric == "rougeL":
        return any(len(text) > _MOST_WORDS and len(_words(text)) > _MOST_WORDS for text in (answer, completion))
    return metric == "chrF" and max(len(answer.strip()), len(completion.strip())) > _MOST_CHARACTERS


LOOKED_AT: dict[Metric, str] = {"rougeL": f"{_MOST_WORDS:,} words", "chrF": f"{_MOST_CHARACTERS:,} characters"}
"""The limits in words, for metrics that do not read all of a very long text."""
