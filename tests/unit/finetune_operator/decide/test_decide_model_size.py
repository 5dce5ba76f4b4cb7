"""The status of a model with many versions stays within its size, and goes on to decide the same."""

import orjson
import pytest

from finetune_api.model import FineTunedModelStatus
from finetune_operator.decide.job.status_size import LIMIT_BYTES
from finetune_operator.decide.model import decide
from finetune_operator.decide.model_size import fit
from tests.unit.finetune_operator.decide.given_models import evaluated, large, spec, view


def size(status: FineTunedModelStatus) -> int:
    return len(orjson.dumps(status.wire()))


@pytest.mark.parametrize("let_go", [0, 200])
def test_a_hundred_versions_fit_and_none_is_forgotten(let_go: int) -> None:
    before = large(active=let_go + 100, let_go=let_go)
    assert size(before) > LIMIT_BYTES
    status = fit(before)
    assert size(status) <= LIMIT_BYTES
    assert [one.version for one in status.versions or ()] == [one.version for one in before.versions or ()]
    assert fit(status) == status
    assert status.versions is not None
    assert status.versions[-1].evaluation is not None, "the active one's scores decide what becomes active next"
    assert (status.let_go or [])[-20:] == (before.let_go or [])[-20:]


def test_scores_of_the_active_version_and_of_later_ones_stay() -> None:
    status = fit(large(active=70))
    kept = [one.version for one in status.versions or () if one.evaluation is not None]
    assert kept[-31:] == list(range(70, 101))


def test_the_oldest_lose_their_scores_first_and_no_more_than_have_to() -> None:
    status = fit(large(active=100))
    versions = status.versions or []
    without = [one.version for one in versions if one.evaluation is None]
    assert without == list(range(1, len(without) + 1))
    back = [*versions[: len(without) - 1], evaluated(len(without)), *versions[len(without) :]]
    assert size(status.model_copy(update={"versions": back})) > LIMIT_BYTES


@pytest.mark.parametrize("activation", ["Automatic", "IfBetter", "Manual"])
@pytest.mark.parametrize("active", [60, 100])
def test_what_is_active_is_the_same_without_them(activation: str, active: int) -> None:
    before = large(active=active)
    assert before.versions is not None
    fitted = fit(before).versions
    assert fitted is not None
    told = {"spec": spec(activation=activation, historyLimit=100)}
    whole, shortened = (view(*versions, active=active, **told) for versions in (before.versions, fitted))
    assert decide(whole).status.active_version == decide(shortened).status.active_version


def test_few_versions_keep_all() -> None:
    before = large(active=20, count=20)
    assert fit(before) is before


@pytest.mark.parametrize("active", [None, 1, 75, 150])
def test_a_hundred_and_fifty_versions_fit_whichever_is_active_and_if_none_is(active: int | None) -> None:
    before = large(active=active, count=150)
    status = fit(before)
    assert size(before) > 64 * 1024 >= size(status)
    assert fit(status) == status
    was, found = before.versions or [], status.versions or []
    decides = [(one.version, one.job_uid, one.artifact, one.connection, one.created_at) for one in was]
    assert [(one.version, one.job_uid, one.artifact, one.connection, one.created_at) for one in found] == decides
    assert found[-1].evaluation is not None, "whether the newest was measured is told"
    assert all(one == was[one.version - 1] for one in found if one.version == active)


def test_what_is_for_people_alone_goes_before_scores_that_may_decide() -> None:
    found = fit(large(active=None, count=110)).versions or []
    assert all(one.eval_loss is None for one in found if one.evaluation is None)
    assert found[0].evaluation is None
    assert found[-1].evaluation is not None


@pytest.mark.parametrize("active", [60, 149])
def test_what_is_active_by_comparing_is_the_same_without_the_scores_of_later_ones(active: int) -> None:
    before = large(active=active, count=150)
    told = {"spec": spec(activation="IfBetter", historyLimit=100)}
    chosen = decide(view(*(before.versions or ()), active=active, **told)).status.active_version
    fitted = fit(before.model_copy(update={"active_version": chosen}))
    assert decide(view(*(fitted.versions or ()), active=chosen, **told)).status.active_version == chosen
