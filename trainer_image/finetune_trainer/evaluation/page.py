"""report.html: curves, scores, answers row by row and the label audit, on one self-contained page.

Rows and answers are untrusted. Everything is escaped, and the page's own content security policy allows only the script
written here and no requests.
"""

import base64
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

import jinja2
from markupsafe import Markup

from finetune_api.evaluation import FIELD_OF_METRIC, Compared, EndpointScores, EvaluationResult, Judged, Metric, Scores
from finetune_api.trainer import AttemptJob
from finetune_api.verdict import SPLITS, DatasetVerdict
from finetune_api.words import counted
from finetune_trainer.data.audit import Audited, printable
from finetune_trainer.data.rows import Turn
from finetune_trainer.evaluation.contest import (
    ACTIVE_VERSION,
    FEW_SHOT,
    TUNED,
    ZERO_SHOT,
    Contest,
    Record,
    endpoint_key,
)

SHOWN_ROWS = 500
"""Rows of the test set on the page; evaluation.jsonl has all of them."""

_SHOWN_CHARACTERS = 4000
_LARGE = 1000
_NONE = "\N{EN DASH}"
_MINUS = "\N{MINUS SIGN}"
_TITLES = {
    TUNED: "tuned model",
    ZERO_SHOT: "base model",
    FEW_SHOT: "base model with examples",
    ACTIVE_VERSION: "active version",
}
_WORDS = {"Better": "better", "Worse": "worse", "NoDifference": "no difference"}


@dataclass(frozen=True)
class Cell:
    """A baseline's value of a metric, and the interval of the tuned model's difference from it."""

    value: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Line:
    """One contestant in the score table."""

    title: str
    cells: list[Cell]
    loss: float | None
    perplexity: float | None
    verdict: str | None
    judged: Judged | None
    problem: str | None


@dataclass(frozen=True)
class Said:
    """One answer to one question."""

    title: str
    text: str | None
    value: float | None
    """By the first metric."""


@dataclass(frozen=True)
class RowShown:
    """One question, its completion, and all answers."""

    place: str
    turns: Sequence[Turn]
    """The prompt."""
    completion: str
    said: list[Said]
    kind: str
    """won, lost or same: the tuned model against the first baseline that answered."""


def page(
    job: AttemptJob,
    *,
    dataset: DatasetVerdict,
    audited: Sequence[Audited],
    curves: str,
    contest: Contest | None,
    settings: dict[str, Any],
    warnings: Sequence[str] = (),
) -> str:
    """The page. `curves` is an SVG made by us, or "" if there is none; everything else is escaped.

    `warnings` are those of the training; those of the data come before them.
    """
    script, style = _asset("page.js"), _asset("page.css")
    return _template().render(
        job=job,
        dataset=[split for name in SPLITS if (split := getattr(dataset, name))],
        warnings=[*dataset.warnings, *warnings],
        settings=settings,
        audited=audited,
        curves=Markup(curves[curves.find("<svg") :]) if curves else "",  # noqa: S704 - drawn here from numbers and checked names
        evaluation=contest.result if contest else None,
        lines=list(_lines(contest.result, contest.metrics)) if contest else [],
        metrics=contest.metrics if contest else [],
        rows=shown_rows(contest) if contest else [],
        words=_WORDS,
        script=Markup(script),  # noqa: S704 - a file of this package
        style=Markup(style),  # noqa: S704 - a file of this package
        script_hash=_hash(script),
        limit=_SHOWN_CHARACTERS,
    )


def _lines(result: EvaluationResult, metrics: Sequence[Metric]) -> Iterator[Line]:
    found = result.baselines
    yield _line(_TITLES[TUNED], result.tuned, metrics)
    if found.zero_shot is not None:
        yield _line(_TITLES[ZERO_SHOT], found.zero_shot, metrics)
    if found.few_shot is not None:
        shown = f"{found.few_shot.examples:g} " if found.few_shot.examples is not None else ""
        noun = "example" if found.few_shot.examples == 1 else "examples"
        yield _line(f"base model with {shown}{noun}", found.few_shot, metrics)
    if found.active_version is not None:
        number = f" {found.active_version.version}" if found.active_version.version else ""
        yield _line(_TITLES[ACTIVE_VERSION] + number, found.active_version, metrics)
    for one in found.endpoints or ():
        yield _line(_endpoint_title(one), one, metrics)


def _endpoint_title(one: EndpointScores) -> str:
    return f"{one.name} ({counted(one.rows, 'row')})" if one.errors else one.name


def _line(title: str, scores: Scores, metrics: Sequence[Metric]) -> Line:
    compared = scores if isinstance(scores, Compared) else Compared()
    cells = []
    for metric in metrics:
        interval = getattr(compared.difference, FIELD_OF_METRIC[metric]) if compared.difference else None
        low, high = (interval.low, interval.high) if interval else (None, None)
        cells.append(Cell(scores.of(metric), low, high))
    return Line(title, cells, scores.loss, scores.perplexity, compared.verdict, compared.judged, compared.problem)


def shown_rows(contest: Contest) -> list[RowShown]:
    """At most SHOWN_ROWS rows, those on which the models differ first, each kind in the order of the file.

    Neither lost nor won rows take more than half while the other kind has more to show.
    """
    places: dict[str, list[int]] = {"lost": [], "won": [], "same": []}
    for place, record in enumerate(contest.rows()):
        of_kind = places[_kind(_said(contest, record))]
        if len(of_kind) < SHOWN_ROWS:
            of_kind.append(place)
    del places["lost"][max(SHOWN_ROWS // 2, SHOWN_ROWS - len(places["won"])) :]
    shown = [(kind, place) for kind, of_kind in places.items() for place in of_kind][:SHOWN_ROWS]
    return [_row(contest, place, kind) for kind, place in shown]


def _row(contest: Contest, place: int, kind: str) -> RowShown:
    question = contest.material.questions[place]
    return RowShown(question.place, question.turns, question.completion, _said(contest, contest.records[place]), kind)


def _said(contest: Contest, record: Record) -> list[Said]:
    """All answers to a row, without those of contestants that could not be asked."""
    said = []
    for name, contestant in contest.contestants.items():
        one = record["answers"][name]
        if one["answer"] is None and contestant.problem:
            continue
        title = _TITLES.get(name, name.removeprefix(endpoint_key("")))
        said.append(Said(title, one["answer"], one.get(contest.metrics[0])))
    return said


def _kind(said: Sequence[Said]) -> str:
    values = [one.value for one in said if one.value is not None]
    if len(values) < 2 or values[0] == values[1]:
        return "same"
    return "won" if values[0] > values[1] else "lost"


def _asset(name: str) -> str:
    return (files("finetune_trainer.evaluation") / name).read_text(encoding="utf-8")


def _hash(script: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


@lru_cache(maxsize=1)
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["plain"] = _plain
    environment.filters["percent"] = lambda value: _NONE if value is None else f"{value:.1%}"
    environment.filters["number"] = _number
    environment.filters["points"] = lambda value: f"{100 * value:+.1f}".replace("-", _MINUS)
    return environment.from_string(_asset("page.html.jinja"))


def _number(value: float | None) -> str:
    """With three decimals, unless the number is large."""
    if value is None:
        return _NONE
    return f"{value:,.3f}" if abs(value) < _LARGE else f"{value:,.0f}"


def _plain(text: str) -> str:
    """A row's text with control characters made visible, truncated if it is very long."""
    shown = printable(text[:_SHOWN_CHARACTERS])
    return shown if len(text) <= _SHOWN_CHARACTERS else f"{shown} … {len(text) - _SHOWN_CHARACTERS:,} characters more"
