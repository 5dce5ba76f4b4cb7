"""One answer against one completion, by each metric: 0 is nothing right, 1 is all right.

White space around both counts nowhere, nor does what was thought before it was said (`spoken`). What else is normalised
stands with each measure. It knows no models.
"""

import json
import re
import string
from collections import Counter
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, NoReturn

import orjson

from finetune_api.evaluation import Metric

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
"""Scripts whose words nothing stands between: each of their letters counts as a word, as is usual for Chinese."""


_THOUGHT, _END_OF_THOUGHT = "<think>", "</think>"


def spoken(text: str) -> str:
    """What was said behind a thought. Templates of models that reason write an empty one before an answer without any.

    Such a model learns it with the answer, and says it again. A thought that was not finished stays: nothing was said.
    """
    return text.rpartition(_END_OF_THOUGHT)[2].strip()


def is_unfinished_thought(text: str) -> bool:
    """Whether a limit of tokens ended it before anything was said."""
    return text.lstrip().startswith(_THOUGHT) and _END_OF_THOUGHT not in text


def exact_match(answer: str, completion: str) -> float:
    """1 where both are the same text."""
    return float(answer.strip() == completion.strip())


def token_f1(answer: str, completion: str) -> float:
    """Harmonic mean of precision and recall over words, counted with multiplicity.

    As in SQuAD's evaluation script (Rajpurkar et al. 2016, arXiv 1606.05250): lower case, without ASCII punctuation and
    without a, an, the; words are what white space parts. Where one of the two has no word left, both must (SQuAD 2.0).
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
    rouge-score knows a-z and 0-9 only; on such texts both agree. Texts without words are right if they are the same.
    """
    from rapidfuzz.distance import LCSseq

    said, wanted = (_word().findall(text.lower()) for text in (answer, completion))
    if not said and not wanted:
        return exact_match(answer, completion)
    return 2 * LCSseq.similarity(said, wanted) / (len(said) + len(wanted))


@lru_cache(maxsize=1)
def _word() -> Any:
    import regex  # Python's own parts words of Hindi at their vowel signs

    return regex.compile(rf"[{_UNSPACED}]\p{{M}}*|[\w--_{_UNSPACED}]+", regex.VERSION1)


def chr_f(answer: str, completion: str) -> float:
    """Sentence-level chrF2 of sacrebleu (Popović 2015, aclanthology.org/W15-3049): 6-grams, beta 2, case counts."""
    return float(_chrf().sentence_score(answer.strip(), [completion.strip()]).score) / 100


@lru_cache(maxsize=1)
def _chrf() -> Any:
    from sacrebleu.metrics.chrf import CHRF

    return CHRF()


def json_valid(answer: str, completion: str) -> float:  # noqa: ARG001 - measures are called alike
    """1 where the whole answer is one JSON value (RFC 8259); a fence of Markdown around it is none of it."""
    return float(_parsed(answer) is not None)


def json_fields(answer: str, completion: str) -> float | None:
    """Part of the fields that have the right value, over all fields that the completion or the answer has.

    A field is a path to a value that is no object or list, or to an empty one; numbers are compared as numbers. So a
    field that is missing, wrong or invented counts as wrong. None where the completion is no JSON: there is no field.
    """
    wanted, said = _parsed(completion), _parsed(answer)
    if wanted is None:
        return None
    if said is None:
        return 0.0
    right, given = dict(_fields(wanted[0])), dict(_fields(said[0]))
    same = sum(path in given and _same(given[path], value) for path, value in right.items())
    return same / len(right.keys() | given.keys())


def _parsed(text: str) -> tuple[Any] | None:
    """The JSON value in a tuple, for it may be null; None where it is none.

    By Python's own reader: integers keep all their digits, and of a name that comes twice the last value counts. It is
    as deep as Python's stack; what lies deeper is for orjson, which has an end too.
    """
    text = text.strip()
    try:
        return (json.loads(text, parse_constant=_no_constant),)
    except ValueError:
        return None
    except RecursionError:
        return _parsed_deep(text)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _parsed_deep(text: str) -> tuple[Any] | None:
    try:
        return (orjson.loads(text),)
    except ValueError:
        return None


def _fields(value: Any) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Paths and values of all fields. Without recursion: an answer may be nested as deep as it likes."""
    left: list[tuple[tuple[str | int, ...], Any]] = [((), value)]
    while left:
        path, found = left.pop()
        if isinstance(found, dict) and found:
            left.extend(((*path, key), part) for key, part in found.items())
        elif isinstance(found, list) and found:
            left.extend(((*path, index), part) for index, part in enumerate(found))
        else:
            yield path, found


def _same(one: Any, other: Any) -> bool:
    """Equal, and not only because Python takes true for 1."""
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


MEASURES: dict[Metric, Callable[[str, str], float | None]] = {
    "exactMatch": exact_match,
    "tokenF1": token_f1,
    "rougeL": rouge_l,
    "chrF": chr_f,
    "jsonValid": json_valid,
    "jsonFields": json_fields,
}
