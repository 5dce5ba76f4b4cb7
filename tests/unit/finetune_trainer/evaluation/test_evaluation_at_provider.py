"""Models at a provider are asked by their part, with patience; what concerns one of them costs the others nothing."""

import json
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from finetune_api.reasons import Reason
from finetune_api.trainer import MeasureJob
from finetune_trainer.attempt.interruption import Interruption
from finetune_trainer.attempt.report import Reporter
from finetune_trainer.data import Turn
from finetune_trainer.errors import TrainerError
from finetune_trainer.evaluation import endpoint
from finetune_trainer.evaluation.endpoint import Way
from finetune_trainer.evaluation.operator_way import explain
from finetune_trainer.evaluation.response import AgainError, FailedError
from finetune_trainer.measure import measure

BASELINES = [{"zeroShot": {}}, {"fewShot": {"examples": 2}}, {"activeVersion": {}}]
ROWS = 6


def said(text, tokens=7):
    return 200, {"choices": [{"message": {"content": text}}], "usage": {"prompt_tokens": tokens}}, {}


def told(status, sentence):
    return status, {"error": sentence}, {}


def by_part(**answers):
    """Each part answers with a text, or with what it is told."""

    def answer(body):
        found = answers[body["model"]]
        return found if isinstance(found, tuple) else said(found, tokens=10 * len(body["messages"]))

    return answer


def made(service, folder: Path, monkeypatch, **more):
    monkeypatch.setattr("finetune_api.uris.CLAIMS_PATH", str(folder))
    (folder / "data").mkdir()
    for name, start in (("train", 100), ("test", 0)):
        rows = [{"prompt": f"question {start + n}", "completion": "red"} for n in range(ROWS)]
        (folder / "data" / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    spec = {
        "connectionRef": {"name": "openai"},
        "baseModel": "gpt",
        "modelRef": {"name": "m"},
        "dataset": {split: {"uri": f"pvc://data/{split}.jsonl"} for split in ("train", "test")},
        "evaluation": {"metrics": ["exactMatch", "rougeL", "chrF"], "baselines": BASELINES}
        | more.pop("evaluation", {}),
    }
    body = {"namespace": "team", "name": "job", "uid": "u1", "attempt": 1, "spec": spec, "activeVersion": 3}
    dataset = {"valid": True, "reason": "Valid", "message": "good"}
    url = f"http://127.0.0.1:{service.server.server_port}/v1/answers/team/job/u1/1"
    return MeasureJob.model_validate(body | {"dataset": dataset, "answersURL": url} | more)


def run(job):
    from finetune_trainer.evaluation import operator_way

    def require_ok(response, content):
        operator_way.explain(response, content, patient=False)

    reporter = Reporter(job)
    measure(job, Way(require_ok=require_ok, patience_seconds=0.0), reporter, Interruption())
    return reporter.report


def test_everybody_is_asked_by_the_part_that_it_plays(serve, tmp_path, monkeypatch):
    service = serve(by_part(tuned="red", base="blue", activeVersion="red"))
    report = run(made(service, tmp_path, monkeypatch))
    found = report.evaluation
    assert report.phase == "Measured"
    assert (found.tuned.exact_match, found.tuned.rouge_l, found.tuned.chr_f) == (1.0, 1.0, 1.0)
    verdicts = (found.baselines.zero_shot.verdict, found.baselines.active_version.verdict, found.verdict)
    assert verdicts == ("Better", "NoDifference", "NoDifference")
    assert found.baselines.active_version.version == 3
    assert found.baselines.few_shot.examples == 2
    assert found.tokens_per_answer.saved == 0.8, "two examples are four messages more"
    assert all(path == "/v1/answers/team/job/u1/1/chat/completions" for path, _, _ in service.requests)
    shown = next(body for _, _, body in service.requests if len(body["messages"]) == 5)
    assert [message["role"] for message in shown["messages"]] == ["user", "assistant"] * 2 + ["user"]
    assert set(shown) == {"model", "messages", "max_tokens", "temperature"}


def test_no_right_answer_is_cut_for_want_of_a_tokenizer(serve, tmp_path, monkeypatch):
    service = serve(by_part(tuned="red", base="blue", activeVersion="red"))
    run(made(service, tmp_path, monkeypatch))
    assert {body["max_tokens"] for _, _, body in service.requests} == {len("red") + 8}


def test_a_base_model_that_is_gone_costs_only_its_own_comparison(serve, tmp_path, monkeypatch):
    gone = told(404, "ProviderRefused: there is no such model")
    service = serve(by_part(tuned="red", base=gone, activeVersion="blue"))
    found = run(made(service, tmp_path, monkeypatch)).evaluation
    assert "no such model" in found.baselines.zero_shot.problem
    assert (found.baselines.zero_shot.verdict, found.verdict) == (None, "Better")


def test_a_tuned_model_that_is_gone_ends_it(serve, tmp_path, monkeypatch):
    service = serve(by_part(tuned=told(404, "ProviderRefused: there is no such model")))
    with pytest.raises(TrainerError) as error:
        run(made(service, tmp_path, monkeypatch))
    assert (error.value.reason, error.value.message) == (Reason.PROVIDER_REFUSED, "there is no such model")


def test_a_budget_that_is_spent_ends_it_for_all(serve, tmp_path, monkeypatch):
    service = serve(by_part(tuned="red", base=told(402, "BudgetExceeded: it is spent")))
    with pytest.raises(TrainerError) as error:
        run(made(service, tmp_path, monkeypatch))
    assert error.value.reason is Reason.BUDGET_EXCEEDED


def test_an_active_version_elsewhere_is_told_and_not_asked(serve, tmp_path, monkeypatch):
    service = serve(by_part(tuned="red", base="blue"))
    found = run(made(service, tmp_path, monkeypatch, missing="it is elsewhere")).evaluation
    active = found.baselines.active_version
    assert (active.version, active.problem, active.verdict) == (3, "it is elsewhere", None)
    assert found.verdict == "Better"


def test_a_judge_compares_answers_of_a_provider_too(serve, tmp_path, monkeypatch):
    judge = serve(lambda body: said("A" if body["messages"][1]["content"].endswith("[Answer B]\nblue") else "B"))
    service = serve(by_part(tuned="red", base="blue", activeVersion="red"))
    where = {"url": judge.endpoint().url, "model": "judge"}
    found = run(made(service, tmp_path, monkeypatch, evaluation={"judge": where})).evaluation
    assert found.baselines.zero_shot.judged.wins == ROWS
    assert found.baselines.active_version.judged.ties == ROWS


MEANT = {
    "the operator has not seen this pod": (403, "not a training pod", True, AgainError, None, None),
    "and never will": (403, "not a training pod", False, FailedError, True, Reason.INTERRUPTED),
    "a pause": (503, "RateLimited: patience", False, AgainError, None, Reason.RATE_LIMITED),
    "one question is refused": (422, "ProviderRefused: a question", False, FailedError, False, None),
    "a question is too long": (413, "a question has at most 9 bytes", False, FailedError, False, None),
    "no money": (402, "BudgetExceeded: spent", False, FailedError, True, Reason.BUDGET_EXCEEDED),
    "no words": (500, None, False, AgainError, None, Reason.PROVIDER_UNAVAILABLE),
}


@pytest.mark.parametrize("name", MEANT)
def test_what_the_operator_means(name):
    status, sentence, patient, kind, for_good, reason = MEANT[name]
    content = json.dumps({"error": sentence}).encode() if sentence else b"<html>"
    with pytest.raises(kind) as error:
        explain(httpx.Response(status), content, patient=patient)
    if for_good is not None:
        assert error.value.for_good is for_good
    if kind is FailedError or reason:
        assert error.value.reason is reason


def put(service, count, **way):
    answers = []
    asked = [(row, (Turn("user", f"question {row}"),)) for row in range(count)]

    def require_ok(response, content):
        explain(response, content, patient=False)

    made_way = Way(require_ok=require_ok, **way)
    return endpoint.ask(service.endpoint(), None, asked, max_tokens=1, on_answer=answers.append, way=made_way), answers


def test_once_patience_is_over_nobody_else_waits(serve):
    service = serve(lambda _: told(503, "RateLimited: patience"))
    outcome, _ = put(service, 20, patience_seconds=0.0)
    assert (outcome.errors, outcome.reason, len(service.requests)) == (20, Reason.RATE_LIMITED, 1)


def test_patience_is_a_matter_of_time_and_not_of_tries(serve, monkeypatch):
    monkeypatch.setattr(endpoint, "_LONGEST_PAUSE", 0.0)
    busy = iter(range(3 * endpoint.TRIES))
    service = serve(lambda _: told(503, "RateLimited: patience") if next(busy, None) is not None else said("red"))
    outcome, answers = put(service, 1, patience_seconds=600.0)
    assert (outcome.errors, [answer.text for answer in answers]) == (0, ["red"])


def test_measuring_imports_neither_torch_nor_transformers():
    program = (
        "import sys, finetune_trainer.measure; from finetune_trainer.evaluation.measures import MEASURES;"
        "[measure('a b', 'a c') for measure in MEASURES.values()];"
        "heavy = {'torch', 'transformers', 'peft', 'datasets', 'pandas', 'matplotlib'} & set(sys.modules);"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
