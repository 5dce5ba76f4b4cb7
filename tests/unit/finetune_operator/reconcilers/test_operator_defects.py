"""What nobody foresaw is told where the object's owner looks, and not in words that may quote it."""

import pytest

from finetune_operator.runtime.errors import Transient
from tests.unit.finetune_operator.reconcilers.fake_cluster import JOB, with_running_job


@pytest.mark.parametrize(("error", "told"), [(KeyError("a row of the data"), True), (Transient(503, "", "no"), False)])
async def test_a_look_that_ends_in_a_defect_is_told_by_an_event(
    monkeypatch: pytest.MonkeyPatch, error: Exception, told: bool
) -> None:
    cluster = await with_running_job()

    def fail() -> None:
        raise error

    monkeypatch.setattr("finetune_operator.reconcilers.jobs.job.job_display", lambda *_: fail())
    cluster.reports.accept(cluster.report("Running"))
    with pytest.raises(type(error)):
        await cluster.settle()
    assert (("FineTuneJob", "Warning", "OperatorDefect") in cluster.told) is told
    if told:
        assert "(KeyError in test_operator_defects.py, line " in cluster.notes[-1]
        assert "a row" not in cluster.notes[-1]
    monkeypatch.undo()
    cluster.wake(JOB)
    await cluster.settle()
    assert cluster.status()["phase"] == "Running"
