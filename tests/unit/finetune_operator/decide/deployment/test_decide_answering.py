"""Which deployment answers, by its record and its provider's list, which may lack it for a moment."""

from typing import Any

import pytest

from finetune_api.deployment import HostedDeployment
from finetune_operator.decide.deployment.hosted import Wanted, plan
from finetune_operator.decide.deployment.hosted_record import Hosted, HostedState, answering
from tests.unit.finetune_operator.decide.given import at, stamp


def entry(version: int, *, answered: bool = True, released_at: str | None = None) -> HostedDeployment:
    return HostedDeployment(
        name=f"md-v{version}",
        version=version,
        connection="azure",
        created_at=stamp(),
        attached=False,
        answered=answered,
        released_at=released_at,
    )


OLD, NEW = entry(1), entry(2)
WANTED = Wanted("md-v2", 2, "azure", "md-v", None)


@pytest.mark.parametrize(
    ("recorded", "found", "name"),
    [
        pytest.param([OLD, NEW], {1: "Ready", 2: "Ready"}, "md-v2", id="both: the wanted one"),
        pytest.param([OLD, NEW], {1: "Ready"}, "md-v2", id="the wanted one is not shown for a moment"),
        pytest.param([OLD, NEW], {1: "Ready", 2: "Failed"}, "md-v1", id="the wanted one has failed"),
        pytest.param([OLD, entry(2, answered=False)], {1: "Ready", 2: "Ready"}, "md-v1", id="it has not answered yet"),
        pytest.param([OLD, entry(2, answered=False)], {2: "Creating"}, "md-v1", id="the one before is not shown"),
        pytest.param([entry(1, released_at=stamp())], {1: "Ready"}, None, id="it was asked to go"),
        pytest.param([], {1: "Ready"}, None, id="none is recorded"),
    ],
)
def test_one_that_a_list_lacks_answers_still_and_no_other_takes_its_place(
    recorded: list[HostedDeployment], found: dict[int, HostedState], name: str | None
) -> None:
    shown = {f"md-v{number}": Hosted(f"md-v{number}", state, "azure") for number, state in found.items()}
    told = answering(recorded, shown, "md-v2")
    assert (told and told.name) == name


@pytest.mark.parametrize(
    ("there", "seconds", "is_stuck"),
    [
        pytest.param({"state": "Creating"}, 86399, False, id="made for less than a day"),
        pytest.param({"state": "Creating"}, 86400, True, id="made for a day"),
        pytest.param({"state": "Creating", "created_at": at(1)}, 86400, False, id="there was no room for it before"),
        pytest.param({"state": "Deleting"}, 86400, False, id="somebody deletes it there"),
        pytest.param({"state": "Ready", "created_at": at(82801)}, 86400, False, id="ready for less than an hour"),
        pytest.param({"state": "Ready"}, 86400, True, id="ready, and silent"),
    ],
)
def test_one_that_does_not_answer_for_long_is_stuck(there: dict[str, Any], seconds: int, is_stuck: bool) -> None:
    found = plan([entry(2, answered=False)], {"md-v2": Hosted("md-v2", **there)}, WANTED, at(seconds))
    said = found.serving.failure.message if found.serving.failure else ""
    assert ("may be billed" in said) == is_stuck
    assert (found.make, found.delete) == (False, ())
    gone = plan(found.recorded, {}, WANTED, at(seconds + 200))
    assert gone.make or there["state"] == "Deleting", "whoever deletes it there has it made again"
