"""What is said and done of a deployment that somebody has changed at its provider."""

from dataclasses import replace
from typing import Any

import pytest

from finetune_api.deployment import HostedDeployment
from finetune_operator.decide.deployment.edited import is_edited
from finetune_operator.decide.deployment.hosted import Plan, Wanted, plan
from finetune_operator.decide.deployment.hosted_record import MISSED, Hosted
from tests.unit.finetune_operator.decide.given import at, stamp

WANTED = Wanted("md-v2", 2, "aws", "md-v", None, model="tuned-2", models={1: "tuned-1"}, one_at_a_time=False)
IN_PLACE = replace(WANTED, terms="Standard x 1")
AS_MADE = replace(WANTED, made_as="ml.g5.xlarge x 1")


def entry(version: int = 2, **fields: Any) -> HostedDeployment:
    base = {"name": f"md-v{version}", "version": version, "connection": "aws", "created_at": stamp(0)}
    return HostedDeployment(**(base | {"attached": False, "answered": True} | fields))


def shown(name: str = "md-v2", **fields: Any) -> dict[str, Hosted]:
    return {name: Hosted(name, "Ready", "aws", **fields)}


def told(made: Plan) -> str:
    assert made.serving.failure is not None
    return made.serving.failure.message


@pytest.mark.parametrize(
    ("wanted", "there", "step"),
    [
        (WANTED, shown(model="theirs"), "change spec.retryNonce to have it recreated"),
        (IN_PLACE, shown(model="theirs"), "change spec.retryNonce to have it changed back"),
        (WANTED, shown(model="tuned-2", units=0), "change spec.retryNonce to have it recreated"),
        (WANTED, shown(model="theirs", bound_until=at(-1)), "change spec.retryNonce to have it recreated"),
        (
            WANTED,
            shown(model="theirs", bound_until=at(60)),
            f"have it changed back there: it cannot be deleted, and is billed, until {stamp(60)}, by its commitment",
        ),
    ],
)
def test_the_next_step_is_one_that_can_be_taken(wanted: Wanted, there: dict[str, Hosted], step: str) -> None:
    assert told(plan([entry()], there, wanted, at(0))).endswith(f"; {step}")


@pytest.mark.parametrize(
    ("model", "there", "edited"),
    [
        ("ft-2", "theirs", True),
        ("ft-2", "FT-2", False),
        ("ft-2", "", False),
        ("", "theirs", False),
        ("", "", False),
    ],
)
def test_another_model_is_told_only_where_both_are_known(model: str, there: str, edited: bool) -> None:
    assert is_edited(model, Hosted("md-v2", "Ready", "aws", model=there)) is edited
    assert not is_edited(model, Hosted("md-v2", "Failed", "aws", model=there)), "that is told as its failure"


def test_within_its_commitment_it_is_not_deleted_whoever_asks() -> None:
    there = shown(model="theirs", bound_until=at(60))
    assert plan([entry()], there, replace(WANTED, nonce="again"), at(0)).delete == ()
    assert plan([entry()], there, replace(WANTED, nonce="again"), at(60)).delete == ("md-v2",)


def test_other_instances_than_it_was_made_with_are_told_and_go_when_that_is_asked() -> None:
    there = shown(model="tuned-2", terms="ml.g5.2xlarge x 2")
    first = plan([entry()], there, AS_MADE, at(0))
    assert (first.serving.state, first.delete) == ("Serving", ())
    assert first.serving.note == (
        "; at the provider it is ml.g5.2xlarge x 2, not ml.g5.xlarge x 1: change spec.retryNonce to have it deleted "
        "and recreated"
    )
    assert plan([entry()], there, replace(AS_MADE, nonce="again"), at(0)).delete == ("md-v2",)


@pytest.mark.parametrize("wanted", [WANTED, AS_MADE])
def test_a_wish_that_is_met_already_is_spent(wanted: Wanted) -> None:
    again = replace(wanted, nonce="again")
    met = plan([entry()], shown(model="tuned-2", terms=wanted.made_as), again, at(0)).recorded
    assert [one.nonce for one in met] == ["again"]
    assert plan(met, shown(model="theirs"), again, at(60)).delete == ()
    gone = plan([met[0].model_copy(update={"unseen_since": stamp(0)})], {}, again, at(MISSED.total_seconds()))
    assert not gone.make


@pytest.mark.parametrize("fields", [{"answered": False}, {"released_at": stamp(0)}])
def test_a_wish_is_not_spent_on_one_that_does_not_serve(fields: dict[str, Any]) -> None:
    made = plan([entry(**fields)], shown(model="tuned-2"), replace(WANTED, nonce="again"), at(1))
    assert [one.nonce for one in made.recorded] == [None]


@pytest.mark.parametrize(("there", "serves"), [({"model": "tuned-1"}, "md-v1"), ({}, "md-v1"), ({"model": "x"}, None)])
def test_an_earlier_one_answers_as_long_as_it_serves_its_version(there: dict[str, Any], serves: str | None) -> None:
    assert plan([entry(1)], shown("md-v1", **there), WANTED, at(0)).serves == serves


def test_one_that_was_renamed_is_named_where_it_is_missed() -> None:
    lost = entry(unseen_since=stamp(0))
    others = {
        "new-name": Hosted("new-name", "Ready", "aws", address="arn:1", model="tuned-2"),
        "other": Hosted("other", "Ready", "aws", address="arn:2", model="tuned-3"),
        "by-its-name": Hosted("by-its-name", "Ready", "aws", address="by-its-name", model="tuned-2"),
    }
    said = told(plan([lost], others, WANTED, at(MISSED.total_seconds())))
    assert said.endswith("; new-name there serves the same model: if it was renamed, attach it (spec.attach.id)")
    assert told(plan([lost], {}, WANTED, at(MISSED.total_seconds()))).endswith("or has expired")
