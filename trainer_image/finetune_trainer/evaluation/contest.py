"""Turns answers into the result: metrics of every contestant, intervals, verdicts, and one record per row.

Goes through the rows once, in portions; records are stored on the scratch disk.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finetune_api.evaluation import (
    ActiveVersionScores,
    Baselines,
    Compared,
    EndpointScores,
    EvaluationResult,
    FewShotScores,
    Judged,
    Metric,
    TokensPerAnswer,
)
from finetune_api.words import counted, cut
from finetune_trainer.evaluation import compare
from finetune_trainer.evaluation.judge import Ruling, tally, undecided
from finetune_trainer.evaluation.material import Material
from finetune_trainer.evaluation.measures import LOOKED_AT, is_unfinished_thought, shortened, spoken
from finetune_trainer.evaluation.stored import Lines, spans

_LONGEST_NOTE, _LONGEST_PROBLEM = 500, 300

Record = dict[str, Any]
"""A row's position, its completion, and for each contestant the answer, its metrics, and the judge's ruling."""

TUNED, ZERO_SHOT, FEW_SHOT, ACTIVE_VERSION = "tuned", "zeroShot", "fewShot", "activeVersion"


@dataclass
class Contestant:
    """One model that was asked."""

    answers: Sequence[str | None]
    """By question; None if unanswered."""
    problem: str | None = None
    notes: dict[str, Any] = field(default_factory=dict)
    """Additional fields of its scores."""
    prompt_tokens: float | None = None
    """Mean tokens of a prompt."""
    rulings: list[Ruling | None] | None = None
    """How the judge ruled on the tuned model's answers against these, if there is a judge."""


@dataclass(frozen=True)
class Contest:
    """The outcome of an evaluation."""

    material: Material
    metrics: Sequence[Metric]
    contestants: Mapping[str, Contestant]
    """By name, the tuned model first."""
    records: Sequence[Record]
    """One per question."""
    result: EvaluationResult

    def rows(self) -> Iterator[Record]:
        """The records, for the artifact, which is on the user's own volume and may contain text of the dataset."""
        return iter(self.records)

    def write_rows(self, path: Path) -> None:
        """Write the records as JSON lines."""
        with path.open("wb") as file:
            for row in self.rows():
                # Writes a lone surrogate as its JSON escape.
                file.write(json.dumps(row, ensure_ascii=False).encode("utf-8", errors="backslashreplace") + b"\n")


def endpoint_key(name: str) -> str:
    """The name of an endpoint among the contestants."""
    return f"endpoint/{name}"


def contest(
    material: Material,
    metrics: Sequence[Metric],
    found: Mapping[str, Contestant],
    losses: Mapping[str, float | None],
    missing: str | None = None,
) -> Contest:
    """Metrics, intervals and verdicts for the answers; `missing` says what was not measured and why."""
    standings = {name: compare.Standing() for name in found}
    records: Lines[Record] = Lines(read=dict)
    beginnings: Counter[Metric] = Counter()
    for span in spans(len(material.questions)):
        records.extend(_portion(material, metrics, found, standings, span))
        beginnings.update(_read_in_part(material, metrics, found, span))
    compared = {
        name: standings[name].compared(metrics[0], loss=losses.get(name)).wire()
        | _details_of(one, found[TUNED], standings[name])
        for name, one in found.items()
        if name != TUNED
    }
    baselines = _baselines(compared, compare.losses(losses.get(ZERO_SHOT)), found)
    result = EvaluationResult(
        rows=len(material.questions),
        metric=metrics[0],
        tuned=standings[TUNED].scores(losses.get(TUNED)),
        baselines=baselines,
        verdict=compare.overall([one.verdict for one in baselines.all()]),
        tokens_per_answer=tokens_per_answer(found),
        test_sha256=material.sha256,
        missing="; ".join(filter(None, (missing, *_by_beginnings(beginnings))))[:_LONGEST_NOTE] or None,
    )
    return Contest(material, metrics, found, records, result)


def _read_in_part(
    material: Material, metrics: Sequence[Metric], found: Mapping[str, Contestant], part: slice
) -> Iterator[Metric]:
    """Yields a metric once for each answer of which it only reads the beginning."""
    completions = [question.completion for question in material.questions[part]]
    for one in found.values():
        answered = zip(one.answers[part], completions, strict=True)
        both = [(spoken(said), spoken(wanted)) for said, wanted in answered if said is not None]
        yield from (
            metric
            for metric in metrics
            if metric in LOOKED_AT
            for said, wanted in both
            if shortened(metric, said, wanted)
        )


def _by_beginnings(answers: Mapping[Metric, int]) -> Iterator[str]:
    for metric, count in answers.items():
        yield f"{metric} of {counted(count, 'answer')} looks at the first {LOOKED_AT[metric]} of very long texts"


def _baselines(
    compared: Mapping[str, Mapping[str, Any]], base_losses: Mapping[str, Any] | None, found: Mapping[str, Contestant]
) -> Baselines:
    """The compared baselines by kind; a base model that was not asked may still have a loss."""
    base = compared.get(ZERO_SHOT, base_losses)
    active = compared.get(ACTIVE_VERSION)
    endpoints = [
        EndpointScores.model_validate({**one, "promptTokens": found[name].prompt_tokens})
        for name, one in compared.items()
        if name.startswith(endpoint_key(""))
    ]
    return Baselines(
        zero_shot=Compared.model_validate(base) if base else None,
        few_shot=FewShotScores.model_validate(compared[FEW_SHOT]) if FEW_SHOT in compared else None,
        active_version=ActiveVersionScores.model_validate(active) if active else None,
        endpoints=endpoints or None,
    )


def _portion(
    material: Material,
    metrics: Sequence[Metric],
    found: Mapping[str, Contestant],
    standings: Mapping[str, compare.Standing],
    part: slice,
) -> Iterator[Record]:
    """Process a portion of the rows: adds it to every standing, and yields its records."""
    questions = material.questions[part]
    answers = {name: one.answers[part] for name, one in found.items()}
    completions = [question.completion for question in questions]
    measured = {name: compare.measured(metrics, said, completions) for name, said in answers.items()}
    for name, standing in standings.items():
        standing.add(measured[TUNED], measured[name])
        standing.asked += len(questions)
        standing.compared_on += sum(None not in both for both in zip(answers[TUNED], answers[name], strict=True))
        standing.unfinished_thoughts += sum(said is not None and is_unfinished_thought(said) for said in answers[name])
    rulings = {name: one.rulings[part] for name, one in found.items() if one.rulings is not None}
    for place, question in enumerate(questions):
        said: dict[str, Any] = {}
        for name in found:
            said[name] = {"answer": answers[name][place], **measured[name].of_row(place)}
            if name in rulings:
                said[name]["judge"] = rulings[name][place]
        yield {"row": question.place, "completion": question.completion, "answers": said}


def _details_of(one: Contestant, tuned: Contestant, standing: compare.Standing) -> dict[str, Any]:
    """Further fields of a baseline: the judge's counts, and why it has fewer answers or no verdict."""
    judged, unfinished_thoughts = _judged(one, tuned), standing.unfinished_thoughts
    thought = (
        f"{unfinished_thoughts} of its answers ended in a thought: a higher evaluation.maxNewTokens has room for it"
    )
    why = (
        standing.undecided(),
        one.problem,
        thought if unfinished_thoughts else None,
        undecided(judged) if judged else None,
    )
    return {"problem": cut("; ".join(filter(None, why)), _LONGEST_PROBLEM) or None, "judged": judged, **one.notes}


def _judged(one: Contestant, tuned: Contestant) -> Judged | None:
    if one.rulings is None:
        return None
    both = zip(one.answers, tuned.answers, strict=True)
    return tally(one.rulings, answered=sum(None not in answers for answers in both))


def tokens_per_answer(found: Mapping[str, Contestant]) -> TokensPerAnswer | None:
    """Mean prompt tokens of the tuned model and of the base with examples, and the fraction saved."""
    tuned = found[TUNED].prompt_tokens
    few_shot = found[FEW_SHOT].prompt_tokens if FEW_SHOT in found else None
    if tuned is None:
        return None
    saved = round(1 - tuned / few_shot, 4) if few_shot else None
    return TokensPerAnswer(tuned=round(tuned, 2), few_shot=few_shot and round(few_shot, 2), saved=saved)
