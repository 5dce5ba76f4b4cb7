"""A chat template that writes the date: one date for all of a run, whatever day its attempts and ranks see."""

import json
import re
import shutil
from datetime import datetime
from pathlib import Path

import pytest

from finetune_api.exit_codes import ExitCode
from finetune_api.reasons import Reason
from finetune_trainer.attempt.interruption import Interruption
from finetune_trainer.computing.ranks import ALONE, join
from finetune_trainer.data import ChatTokenizer, Turn
from finetune_trainer.data.tokenizer import chat_template
from finetune_trainer.errors import TrainerError
from finetune_trainer.output import keeping
from finetune_trainer.training import moment
from tests.assets.tiny_model import CHAT_TEMPLATE, NAME
from tests.unit.finetune_trainer.computing import ranks
from tests.unit.finetune_trainer.jobs import make_job
from tests.unit.finetune_trainer.output.kept_runs import at_step, run
from tests.unit.finetune_trainer.training.own_jobs import job_with
from tests.unit.finetune_trainer.training_runs import broken_off_after, do, same_result

DATED = "{{ strftime_now('%d %b %Y') }}\n" + CHAT_TEMPLATE
SPLITS = ("train", "validation", "test")


@pytest.fixture(scope="module")
def dated(tiny_model, tmp_path_factory):
    """A model cache whose model has a template as Llama 3 has it."""
    cache = tmp_path_factory.mktemp("dated")
    shutil.copytree(tiny_model / NAME, cache / NAME)
    (cache / NAME / "chat_template.jinja").write_text(DATED)
    return cache


def clock_of(day: int) -> type[datetime]:
    class Clock(datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2026, 3, day, 23, 59, tzinfo=tz)

    return Clock


@pytest.fixture
def on_day(monkeypatch):
    """Sets the calendar of templates, and of what is noted."""

    def set_it(day: int) -> None:
        for module in (moment, chat_template):
            monkeypatch.setattr(module, "datetime", clock_of(day))

    set_it(1)
    return set_it


def test_an_attempt_on_another_day_learns_from_the_same_tokens_and_is_asked_with_them(dated, tmp_path, on_day):
    usual = {"splits": SPLITS, "evaluation": {"maxNewTokens": 4}}
    straight, broken = (make_job(tmp_path / name, dated, **usual) for name in ("straight", "broken"))
    broken = broken.model_copy(update={"spec": straight.spec})
    code, expected, _ = do(straight)
    assert code == ExitCode.OK
    with broken_off_after(7):
        assert do(broken)[0] != ExitCode.OK
    on_day(28)
    code, report, _ = do(broken)
    assert code == ExitCode.OK
    same_result(straight, broken)
    assert report.evaluation == expected.evaluation
    answers = [(Path(job.output) / "model" / "evaluation.jsonl").read_text() for job in (straight, broken)]
    assert answers[0] == answers[1]
    page = re.sub("<[^>]*>", "", (Path(broken.output) / "model" / "report.html").read_text())
    assert ("01Mar2026" in page.replace(" ", ""), "28Mar2026" in page.replace(" ", "")) == (True, False)
    assert not (Path(broken.output) / moment.FILE).exists(), "a run is over with its artifact"


def test_what_a_next_attempt_writes_is_kept_in_a_store_too(dated, tmp_path, bucket, on_day, monkeypatch):
    monkeypatch.setattr(keeping, "PERIOD_SECONDS", 0.15)
    first = make_job(tmp_path, dated).model_copy(
        update={"store": bucket.ref("dated"), "output": str(tmp_path / "node-1")}
    )
    assert run(first, at_step(6, Interruption.request))[0] == ExitCode.INTERRUPTED
    on_day(28)
    second = first.model_copy(update={"attempt": 2, "output": str(tmp_path / "node-2")})
    assert run(second, at_step(9, Interruption.request))[0] == ExitCode.INTERRUPTED
    assert json.loads((tmp_path / "node-2" / moment.FILE).read_text()) == "2026-03-01T23:59:00"


def leave_moment(folder: Path) -> None:
    """On a node of its own, with a calendar of its own."""
    world = join()
    moment.datetime = clock_of(1 + world.rank)  # type: ignore[attr-defined]
    output = folder / f"node-{world.rank}"
    (folder / str(world.rank)).write_text(moment.of_run(output, world).isoformat())
    assert (output / moment.FILE).exists() == world.is_first
    with world.connected():
        pass  # rank 0 has the store: it leaves when the other one has read


def test_all_ranks_take_the_moment_of_the_first(tmp_path):
    assert ranks.ended(ranks.start(2, leave_moment, tmp_path)) == [0, 0]
    assert {(tmp_path / rank).read_text() for rank in "01"} == {"2026-03-01T23:59:00"}


OWN = """
from datetime import datetime
from finetune_trainer import recipe
from finetune_trainer.data import Turn
run = recipe.context()
(run.checkpoints / "said").write_text(recipe.chat_tokenizer(run).render([Turn("user", "?")]) + str(run.moment))
(row,) = {recipe.chat_tokenizer(run).backend.decode(recipe.tokenised(run).row(0)[0])[:11]}
(run.checkpoints / "learnt").write_text(row)
raise SystemExit(3)
"""


def test_own_code_writes_the_moment_of_its_first_attempt(dated, tmp_path):
    job = job_with(OWN, tmp_path, dated)
    note = Path(job.output) / moment.FILE
    note.parent.mkdir()
    note.write_text(json.dumps("2001-02-03T04:05:06"))
    code, report, _ = do(job)
    assert (code, report.failure.reason) == (ExitCode.CODE_FAILED, Reason.CODE_FAILED)
    checkpoints = Path(job.output) / "checkpoints"
    said = (checkpoints / "said").read_text()
    assert said.startswith("03 Feb 2001")
    assert said.endswith("2001-02-03 04:05:06")
    assert (checkpoints / "learnt").read_text() == "03 Feb 2001"


def test_a_template_without_a_moment_has_the_clocks(dated, on_day):
    chat = ChatTokenizer.from_folder(dated / NAME)
    assert chat.render([Turn("user", "?")]).startswith("01 Mar 2026")
    on_day(2)
    assert chat.render([Turn("user", "?")]).startswith("02 Mar 2026")


@pytest.mark.parametrize("note", ["", "{", "[]", '"yesterday"', "7", "null"])
def test_a_note_that_is_none_is_written_anew(tmp_path, note):
    (tmp_path / moment.FILE).write_text(note)
    found = moment.of_run(tmp_path, ALONE)
    assert json.loads((tmp_path / moment.FILE).read_text()) == found.isoformat()
    assert moment.of_run(tmp_path, ALONE) == found


def test_a_folder_in_its_place_is_told(tmp_path):
    (tmp_path / moment.FILE).mkdir()
    with pytest.raises(TrainerError) as told:
        moment.of_run(tmp_path, ALONE)
    assert told.value.reason == Reason.ARTIFACT_FAILED
    assert moment.FILE in told.value.message
    moment.forget(tmp_path)
