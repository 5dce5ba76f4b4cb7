"""torchrun in a pod: what comes out of its ranks comes out of the pod."""

import os
import signal
from pathlib import Path

import pytest

from finetune_api.exit_codes import ExitCode
from finetune_api.names import JOB_VARIABLE
from finetune_api.reasons import Reason
from finetune_api.trainer import Report, TrainerJob, read_termination_message, termination_message
from finetune_trainer.attempt import launch
from finetune_trainer.errors import TrainerError
from tests.unit.finetune_trainer.jobs import make_job


@pytest.fixture
def job(tmp_path):
    return make_job(tmp_path, tmp_path / "an empty cache").model_copy(update={"report": None, "ranks_per_node": 2})


def test_the_pod_ends_with_code_and_message_of_the_rank_that_failed_first(job, tmp_path, monkeypatch):
    monkeypatch.setenv(JOB_VARIABLE, job.model_dump_json(by_alias=True, exclude_none=True))
    before = signal.getsignal(signal.SIGTERM)
    assert launch.is_needed(job)
    assert launch.main(job, message=tmp_path / "message") == ExitCode.MODEL_NOT_FOUND
    told = read_termination_message((tmp_path / "message").read_text())
    assert told is not None
    assert told.failure is not None
    assert told.failure.reason == Reason.MODEL_NOT_IN_CACHE
    assert signal.getsignal(signal.SIGTERM) is before
    assert "FINETUNE_RANKS" not in os.environ, "what is started next is not a rank"


SAID = {
    "its echo ended before it": ({0: 75}, {0: "Interrupted", 1: "OutOfMemory"}, (79, "OutOfMemory")),
    "its echo ended with it": ({0: 75, 1: -9}, {0: "Interrupted"}, (137, None)),
    "it ended first": ({0: 75, 1: 79}, {0: "Interrupted", 1: "OutOfMemory"}, (79, "OutOfMemory")),
    "nobody says anything else": ({1: 75}, {0: None, 1: "Interrupted"}, (75, "Interrupted")),
    "all were asked to stop": ({0: 75, 1: 75}, {0: None, 1: None}, (75, None)),
}


@pytest.mark.parametrize("what", SAID)
def test_a_pod_ends_with_the_cause_and_not_with_its_echo_whichever_the_agent_saw_first(
    job, tmp_path, monkeypatch, what
):
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
    from torch.distributed.launcher import api

    codes, reasons, (code, reason) = SAID[what]

    def ended(*_):
        for rank, why in reasons.items():
            about = {"namespace": job.namespace, "name": job.name, "uid": job.uid, "attempt": 1}
            failure = TrainerError(Reason(why), "x").failure(attempt=1) if why else None
            report = Report(**about, phase="Failed" if why else "Interrupted", failure=failure)
            (Path(os.environ["FINETUNE_RANKS"]) / str(rank)).write_text(termination_message(report))
        raise ChildFailedError("train", {rank: ProcessFailure(rank, 1, code, "") for rank, code in codes.items()})

    monkeypatch.setattr(api, "launch_agent", ended)
    assert launch.main(job, message=tmp_path / "message") == code
    left = (tmp_path / "message").read_text() if (tmp_path / "message").exists() else ""
    told = read_termination_message(left)
    assert (told.failure.reason if told and told.failure else None) == reason


@pytest.mark.parametrize(
    ("nodes", "ranks", "environment", "needed"),
    [(1, 1, {}, False), (2, 1, {}, True), (1, 2, {}, True), (2, 8, {"RANK": "0"}, False)],
)
def test_torchrun_is_for_more_than_one_process_and_starts_none_in_a_rank(
    job, monkeypatch, nodes, ranks, environment, needed
):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert launch.is_needed(job.model_copy(update={"nodes": nodes, "ranks_per_node": ranks})) is needed


@pytest.mark.parametrize(
    ("left", "failed", "told"),
    [
        ({0: "Succeeded", 1: "Running"}, None, "Succeeded"),
        ({2: "Failed", 10: "Running"}, 2, "Failed"),
        ({3: "x"}, 4, None),
    ],
)
def test_the_message_of_a_pod_is_that_of_its_lowest_rank_unless_another_failed(job, tmp_path, left, failed, told):
    folder = tmp_path / "ranks"
    folder.mkdir()
    for rank, phase in left.items():
        about = {"namespace": job.namespace, "name": job.name, "uid": job.uid, "attempt": 1}
        text = termination_message(Report(**about, phase=phase)) if phase != "x" else phase
        (folder / str(rank)).write_text(text)
    (folder / "finetune-rank-x").mkdir()
    message = tmp_path / "message"
    launch._pass_on(folder, failed, message)
    assert (read_termination_message(message.read_text()).phase if message.exists() else None) == told


@pytest.mark.parametrize(
    ("left", "done"),
    [
        ({0: "Succeeded", 1: "Running"}, True),
        ({0: "Running", 1: "Running"}, False),
        ({0: "Interrupted"}, False),
        ({1: "Succeeded"}, False),
        ({}, False),
    ],
)
def test_an_agent_that_is_stopped_while_it_waits_for_others_has_done_what_its_first_rank_has(
    job, tmp_path, monkeypatch, left, done
):
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.launcher import api

    def stopped(*_):
        for rank, phase in left.items():
            about = {"namespace": job.namespace, "name": job.name, "uid": job.uid, "attempt": 1}
            text = termination_message(Report(**about, phase=phase))
            (Path(os.environ["FINETUNE_RANKS"]) / str(rank)).write_text(text)
        raise SignalException("told to end", signal.SIGTERM)

    monkeypatch.setattr(api, "launch_agent", stopped)
    code = launch.main(job, message=tmp_path / "message")
    assert code == (ExitCode.OK if done else ExitCode.INTERRUPTED)


def test_only_rank_0_reports_to_the_operator(job, monkeypatch):
    reporting = TrainerJob.model_validate(job.wire() | {"report": {"url": "https://operator/v1/reports"}})
    assert launch.job_for_reporter(reporting).report is not None
    monkeypatch.setenv("RANK", "1")
    assert launch.job_for_reporter(reporting).report is None
