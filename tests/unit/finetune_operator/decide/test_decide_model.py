"""Which version of a model is active, whether it is served, which weights may go."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from finetune_api.evaluation import EvaluationResult
from finetune_api.job_status import Failure
from finetune_api.model import DELETED_LIMIT, DeletedVersion, FineTunedModelStatus, ModelVersion
from finetune_api.reasons import Reason
from finetune_operator.decide.job.versions import there_are
from finetune_operator.decide.model import (
    ModelView,
    active_version,
    beats,
    decide,
    not_deployed,
    prunable,
)
from tests.unit.finetune_operator.decide.given import at, condition, kstatus
from tests.unit.finetune_operator.decide.given_models import deployed, spec, version, view


def measured(number: int, exact: float, against: int | None = None, **fields: Any) -> ModelVersion:
    """A version that was compared with version `against`; `fields` overrides parts of its evaluation."""
    verdict = fields.pop("verdict", "Better")
    compared = {"activeVersion": {"version": against, "verdict": verdict}} if against is not None else {}
    baselines = {"zeroShot": {"exactMatch": 0.1, "verdict": fields.pop("base", "Better")}, **compared}
    made = version(number, exact, verdict)
    assert made.evaluation is not None
    body = made.evaluation.wire() | {"baselines": baselines} | fields
    return made.model_copy(update={"evaluation": EvaluationResult.model_validate(body)})


ASLEEP = {"since": "2026-11-01T00:00:00Z", "generation": 1}
READY = ("Ready", "True", "Ready")
V = [version(1), version(2), version(3)]


@pytest.mark.parametrize(
    ("its_spec", "versions", "present", "active"),
    [
        (spec(), [], None, None),
        (spec(), V, None, 3),
        (spec(), V, 1, 3),
        (spec(activeVersion=1), V, 3, 1),
        (spec(activeVersion=9), V, 2, 2),
        (spec(activeVersion=9), [], None, None),
        (spec(activation="Manual"), V, None, None),
        (spec(activation="Manual", activeVersion=2), V, None, 2),
        (spec(activation="Manual"), V, 2, 2),
        (spec(activation="Manual"), V, 9, None),
        (spec(activation="IfBetter"), [], None, None),
        (spec(activation="IfBetter"), [version(1)], None, 1),
        (spec(activation="IfBetter"), [version(1), version(2)], 1, 1),
        (spec(activation="IfBetter"), [version(1, 0.5), version(2, 0.6)], 1, 2),
        (spec(activation="IfBetter"), [version(1, 0.5), version(2, 0.5)], 1, 1),
        (spec(activation="IfBetter"), [version(1, 0.5), version(2, 0.9, "NoDifference")], 1, 1),
        (spec(activation="IfBetter"), [version(1, 0.5), version(2, 0.6), version(3, 0.55)], 2, 2),
        (spec(activation="IfBetter"), [version(1), version(2, 0.6)], 1, 2),
        # History has let version 1 go: number 2, found worse, does not become active for being the oldest.
        (spec(activation="IfBetter"), [version(2, 0.8, "Worse"), version(3, 0.6)], 3, 3),
        # Compared with the active version: its verdict counts, not the higher number.
        (spec(activation="IfBetter"), [measured(1, 0.5), measured(2, 0.51, 1, verdict="NoDifference")], 1, 1),
        (spec(activation="IfBetter"), [measured(1, 0.5), measured(2, 0.49, 1, verdict="Worse")], 1, 1),
        (spec(activation="IfBetter"), [measured(1, 0.5), measured(2, 0.7, 1)], 1, 2),
        # Two jobs at once were both compared with version 1: the higher score of the two is active.
        (spec(activation="IfBetter"), [measured(1, 0.5), measured(2, 0.7, 1), measured(3, 0.8, 1)], 2, 3),
        (spec(activation="IfBetter"), [measured(1, 0.5), measured(2, 0.8, 1), measured(3, 0.7, 1)], 2, 2),
        # Other rows, another metric: numbers that do not compare.
        (spec(activation="IfBetter"), [measured(1, 0.5), measured(2, 0.9, testSHA256="a" * 64)], 1, 1),
        (spec(activation="IfBetter"), [measured(1, 0.5), measured(2, 0.9, metric="rougeL")], 1, 1),
        # Worse than an endpoint is no reason to keep an older version.
        (spec(activation="IfBetter"), [measured(1, 0.5), measured(2, 0.9, verdict="Worse")], 1, 2),
        (spec(activation="IfBetter"), [measured(1, 0.5), measured(2, 0.9, base="NoDifference")], 1, 1),
        # What is active stays, whatever made it so (Automatic, a pin): only a better one replaces it.
        (spec(activation="IfBetter"), V, 3, 3),
        (spec(activation="IfBetter"), [version(1, 0.5), version(2, 0.6), version(3, 0.4, "Worse")], 3, 3),
        (spec(activation="IfBetter"), [version(1), version(2, 0.9), version(3), version(4)], 3, 3),
        (spec(activation="IfBetter"), [version(1), version(2), version(3, 0.6), version(4)], 2, 3),
        # After a rollback each newer one is judged against what is active.
        (spec(activation="IfBetter"), [version(1, 0.5), version(2, 0.4), version(3, 0.6)], 1, 3),
        # A status that has lost which one was active is rebuilt from all versions.
        (spec(activation="IfBetter"), [version(1, 0.5), version(2, 0.6), version(3, 0.4, "Worse")], None, 2),
    ],
)
def test_the_active_version(
    its_spec: Any, versions: list[ModelVersion], present: int | None, active: int | None
) -> None:
    assert active_version(its_spec, versions, present) == active


def test_better_needs_the_verdict_and_a_higher_score() -> None:
    one, two = version(1, 0.5), version(2, 0.6)
    assert beats(two.evaluation, one)
    assert not beats(one.evaluation, two)
    assert not beats(None, one)
    assert beats(two.evaluation, None)
    assert not beats(version(3, 0.9, "Worse").evaluation, None)


STATES: dict[str, tuple[ModelView, str, str, bool]] = {
    "no version": (view(), "NoVersion", "InProgress", False),
    "Manual and nothing chosen": (view(*V, spec=spec(activation="Manual")), "NoVersion", "InProgress", False),
    "not deployed yet": (view(*V), "Deploying", "InProgress", True),
    "being deployed": (view(*V, deployments=[deployed(served=2)]), "Deploying", "InProgress", True),
    "an older version answers": (
        view(*V, deployments=[deployed(2, conditions=[READY])]),
        "Deploying",
        "InProgress",
        True,
    ),
    "answers": (view(*V, deployments=[deployed(3, conditions=[READY])]), "Ready", "Current", True),
    "cannot be served": (
        view(*V, deployments=[deployed(2, conditions=[("Stalled", "True", "DeploymentFailed")])]),
        "DeploymentFailed",
        "Failed",
        True,
    ),
    "deployed once that is spelled out": (
        view(*V, deployments=[deployed(2, conditions=[("Reconciling", "False", "AwaitingConfiguration")])]),
        "AwaitingConfiguration",
        "InProgress",
        True,
    ),
    "no replicas": (view(*V, deployments=[deployed(phase="Idle")]), "Suspended", "InProgress", True),
    "stopped for being idle": (
        view(*V, deployments=[deployed(phase="Idle", asleep=ASLEEP)]),
        "Idle",
        "InProgress",
        True,
    ),
    "served by hand": (view(*V, spec=spec(deployment={"mode": "Manual"})), "Ready", "Current", False),
    "pin that does not exist": (view(*V, active=2, spec=spec(activeVersion=9)), "VersionNotFound", "Failed", True),
    "pin on the next version, which a job makes": (
        view(*V, active=3, spec=spec(activeVersion=4), under_way=("b",)),
        "VersionNotFound",
        "InProgress",
        True,
    ),
    "pin of a model without versions, whose job may come later": (
        view(spec=spec(activeVersion=1)),
        "NoVersion",
        "InProgress",
        False,
    ),
    "pin on the next version, which no job makes": (
        view(*V, active=3, spec=spec(activeVersion=4)),
        "VersionNotFound",
        "Failed",
        True,
    ),
    "name taken": (view(*V, deployments=[deployed(owned=False, of="other")]), "NameConflict", "Failed", False),
    "name taken for one version": (
        view(*V, deployments=[deployed(owned=False, wants=1)]),
        "NameConflict",
        "Failed",
        False,
    ),
    "name taken beside a template": (
        view(*V, deployments=[deployed(owned=False)], spec=spec(deployment={"template": {"azureOpenAI": {}}})),
        "NameConflict",
        "Failed",
        False,
    ),
    "its user's own deployment follows": (
        view(*V, deployments=[deployed(owned=False)]),
        "Deploying",
        "InProgress",
        False,
    ),
    "its user's own deployment answers": (
        view(*V, deployments=[deployed(3, owned=False, conditions=[READY])]),
        "Ready",
        "Current",
        False,
    ),
    "spec that models do not know": (view(*V, active=2, spec=None, spec_error="x"), "SpecInvalid", "Failed", False),
}


@pytest.mark.parametrize("name", STATES)
def test_every_state_has_its_reason_and_kstatus(name: str) -> None:
    given, reason, for_tools, deploy = STATES[name]
    decision = decide(given)
    assert condition(decision.status, "Ready").reason == reason
    assert kstatus(decision.status) == for_tools
    assert decision.deploy is deploy
    assert decide(replace(given, status=decision.status, now=at(60))).status == decision.status


def test_what_serves_goes_on_serving_when_the_spec_cannot_be_read_or_the_pin_is_wrong() -> None:
    assert decide(view(*V, active=2, spec=None, spec_error="x")).status.active_version == 2
    assert decide(view(*V, active=2, spec=spec(activeVersion=9))).status.active_version == 2


def test_what_was_decided_stays_where_its_deployment_cannot_be_made_and_says_why() -> None:
    given = view(*V, active=3, generation=2)
    decided = decide(given).status
    status = not_deployed(given, decided, Failure.because(Reason.WRITE_REFUSED, "a webhook says no"))
    assert (status.active_version, status.versions) == (decided.active_version, decided.versions)
    assert kstatus(status, generation=2) == "Failed"
    stalled = condition(status, "Stalled")
    assert (stalled.reason, stalled.observed_generation) == ("WriteRefused", 2)
    assert "a webhook says no" in stalled.message


def test_a_model_on_its_way_out_is_left_alone() -> None:
    given = view(*V, deleting=True)
    assert decide(given).status == given.status
    assert not decide(given).deploy


def test_status_tells_of_the_active_version_and_who_serves_which() -> None:
    by_hand = deployed(1, name="by-hand", owned=False, wants=1)
    versions = [*V[:2], V[2].model_copy(update={"eval_loss": 0.31})]
    status = decide(view(*versions, deployments=[by_hand, deployed(3, conditions=[READY])])).status
    assert (status.active_version, status.base_model, status.deployment) == (3, "tiny/llama", "sentiment")
    assert status.eval_loss == 0.31
    assert [v.deployment for v in status.versions or ()] == ["by-hand", None, "sentiment"]


def test_a_namesake_that_serves_another_model_serves_none_of_the_versions() -> None:
    status = decide(view(*V, deployments=[deployed(3, owned=False, of="another", conditions=[READY])])).status
    assert [v.deployment for v in status.versions or ()] == [None, None, None]


@pytest.mark.parametrize(
    ("limit", "active", "deployments", "gone"),
    [
        (3, 3, [], []),
        (2, 3, [], [1]),
        (1, 3, [], [1, 2]),
        (1, 1, [], [2]),
        (1, 3, [deployed(served=2)], [1]),
        (1, 3, [deployed(targetVersion=1)], [2]),
        (1, 3, [deployed(wants=1, name="by-hand", owned=False)], [2]),
        (1, 3, [deployed(served=1, owned=False, of="another")], [1, 2]),
    ],
)
def test_history_keeps_what_is_used(limit: int, active: int, deployments: Any, gone: list[int]) -> None:
    given = view(*V, spec=spec(historyLimit=limit), deployments=deployments, active=active)
    assert [v.version for v in prunable(given, active)] == gone


def test_what_history_lets_go_is_remembered_as_long_as_its_job_is_there() -> None:
    def remembered(before: FineTunedModelStatus, *there: int) -> list[int]:
        makers = frozenset(f"uid-{number}" for number in there)
        given = view(spec=spec(historyLimit=1), active=3, pruned=frozenset({2}), makers=makers)
        after = decide(replace(given, status=before)).status
        assert not set(_numbers(after.let_go)) & set(_numbers(after.versions))
        return _numbers(after.let_go)

    earlier = [DeletedVersion(version=n, job=f"job-{n}", job_uid=f"uid-{n}") for n in range(1000, 1000 + DELETED_LIMIT)]
    before = FineTunedModelStatus(versions=list(V), let_go=earlier[:1])
    assert remembered(before, 1000, 1, 2, 3) == [1000, 2]
    assert remembered(before, 2) == [2], "whose job is gone, of that nobody tells again"
    assert remembered(before) == []
    full = before.model_copy(update={"let_go": earlier})
    assert remembered(full, *range(1300)) == [*range(1001, 1000 + DELETED_LIMIT), 2], "the newest, within bounds"


def _numbers(versions: Sequence[ModelVersion | DeletedVersion] | None) -> list[int]:
    return [one.version for one in versions or ()]


def test_the_version_that_was_active_until_now_is_kept_while_the_next_is_deployed() -> None:
    decision = decide(view(*V, active=1, spec=spec(historyLimit=1)))
    assert [v.version for v in decision.prune] == [2]


def test_a_pruned_version_leaves_status_and_one_being_pruned_cannot_be_pinned() -> None:
    gone = decide(
        view(*V, spec=spec(historyLimit=1, activeVersion=1), active=3, pruned=frozenset({1}), pruning=frozenset({1}))
    )
    assert [v.version for v in gone.status.versions or ()] == [2, 3]
    assert gone.status.active_version == 3
    assert condition(gone.status, "Ready").reason == "VersionNotFound"
    going = decide(view(*V, spec=spec(historyLimit=1, activeVersion=1), active=3, pruning=frozenset({1})))
    assert (going.status.active_version, condition(going.status, "Ready").reason) == (3, "VersionNotFound")
    assert [v.version for v in going.status.versions or ()] == [1, 2, 3]


SET = ": set spec.activeVersion: 2 to use it all the same"


@pytest.mark.parametrize(
    ("versions", "active", "said"),
    [
        ([version(1, 0.5), version(2, 0.4, "Worse")], 1, f"version 1 is active; version 2 was found no better{SET}"),
        ([version(1, 0.5), version(2)], 1, f"version 1 is active; version 2 was not measured (dataset.test){SET}"),
        ([version(1, 0.5), version(2, 0.6)], 2, "version 2 is active"),
        (
            [measured(1, 0.5), measured(2, 0.9, base="NoDifference")],
            1,
            f"version 1 is active; version 2 was found no better than its base model{SET}",
        ),
        (
            [measured(1, 0.5), measured(2, 0.4, 1, verdict="NoDifference")],
            1,
            f"version 1 is active; version 2 was found no better{SET}",
        ),
        # Nobody has found it worse: it was compared with a version that is active no more, or could not be.
        (
            [measured(1, 0.5), measured(2, 0.9, testSHA256="a" * 64)],
            1,
            "version 1 is active; version 2 was not compared with version 1, which was measured on other rows or by "
            f"another metric{SET}",
        ),
        (
            [measured(1, 0.5), measured(2, 0.9, metric="rougeL")],
            1,
            "version 1 is active; version 2 was not compared with version 1, which was measured on other rows or by "
            f"another metric{SET}",
        ),
        (
            [measured(1, 0.5), measured(2, 0.4, 1, verdict=None)],
            1,
            f"version 1 is active; version 2 was not compared with version 1, and scores no higher{SET}",
        ),
        (
            [measured(1, 0.5), measured(2, 0.9, base=None, verdict=None)],
            1,
            f"version 1 is active; version 2 has no verdict, against its base model or version 1{SET}",
        ),
    ],
)
def test_a_version_that_was_passed_over_is_explained(versions: list[ModelVersion], active: int, said: str) -> None:
    asked = spec(activation="IfBetter", deployment={"mode": "Manual"})
    status = decide(view(*versions, active=active, spec=asked)).status
    assert condition(status, "Ready").message == said


def test_nothing_is_explained_where_somebody_has_chosen_the_active_version() -> None:
    asked = spec(activation="IfBetter", activeVersion=1, deployment={"mode": "Manual"})
    status = decide(view(version(1, 0.5), version(2, 0.4, "Worse"), active=1, spec=asked)).status
    assert condition(status, "Ready").message == "version 1 is active"


@pytest.mark.parametrize(("count", "said"), [(0, "there are none yet"), (1, "there is 1"), (2, "there are 1, 2")])
def test_which_versions_there_are_is_said_as_people_say_it(count: int, said: str) -> None:
    assert there_are(V[:count]) == said


def test_a_model_that_has_lost_its_versions_does_not_say_that_there_were_none() -> None:
    found = condition(decide(view(deployments=[deployed(3)])).status, "Ready")
    assert (found.status, found.reason) == ("False", "NoVersion")
    assert "status has lost its versions, and no job has recorded them" in found.message
    assert "ModelDeployment sentiment keeps serving version 3" in found.message
    assert condition(decide(view(deployments=[deployed()])).status, "Ready").message == "no job has made a version yet"


def test_a_model_without_replicas_says_what_brings_its_server_back() -> None:
    stopped = deployed(phase="Idle", conditions=[("Ready", "False", "Suspended")])
    found = condition(decide(view(*V, deployments=[stopped])).status, "Ready")
    assert found.message == "version 3 is active; ModelDeployment sentiment has no replicas: m"


def test_a_model_without_replicas_also_says_why_its_newest_version_is_not_active() -> None:
    stopped = deployed(2, phase="Idle", conditions=[("Ready", "False", "Suspended")])
    passed_over = view(*V, spec=spec(activation="IfBetter"), active=2, deployments=[stopped])
    found = condition(decide(passed_over).status, "Ready")
    assert found.message == (
        "version 2 is active; ModelDeployment sentiment has no replicas: m; version 3 was not measured (dataset.test): "
        "set spec.activeVersion: 3 to use it all the same"
    )
