"""Which deployment answers, by its record and its provider's list, which may lack it for a moment."""

import pytest

from finetune_api.deployment import HostedDeployment
from finetune_operator.decide.deployment.hosted_record import Hosted, HostedState, answering
from tests.unit.finetune_operator.decide.given import stamp


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
