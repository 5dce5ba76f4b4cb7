"""Conditions from facts: which stay, which change, and of which generation they speak."""

from finetune_api.reasons import Reason
from finetune_operator.decide.conditions import Fact, merge
from tests.unit.finetune_operator.decide.given import NOW, at, stamp


def test_conditions_that_are_not_named_stay() -> None:
    first = merge(
        None, [Fact("Ready", "True", Reason.READY), Fact("Failed", "False", Reason.PENDING)], generation=1, now=NOW
    )
    second = merge(first, [Fact("Ready", "False", Reason.QUEUED, "m" * 5000)], generation=2, now=at(9))
    by_type = {c.type: c for c in second}
    assert by_type["Failed"] == first[1].model_copy(update={"observed_generation": 2})
    ready = by_type["Ready"]
    assert (ready.last_transition_time, ready.observed_generation, len(ready.message)) == (stamp(9), 2, 4096)
