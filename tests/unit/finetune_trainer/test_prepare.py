"""What a pod does for a provider outside of the cluster: rules, conversion, budget, upload."""

import hashlib
import json
from codecs import BOM_UTF8
from functools import partial
from pathlib import Path

import pytest

from finetune_api.catalogue import Catalogue, Price, billed, estimate
from finetune_api.job import FineTuneJobManifest
from finetune_api.job_status import ProviderFile
from finetune_api.names import UPLOAD_PATH
from finetune_api.reasons import Reason
from finetune_api.trainer import PrepareJob
from finetune_trainer import prepare as prepare_module
from finetune_trainer.__main__ import PROVIDERS
from finetune_trainer.attempt.report import Reporter
from finetune_trainer.attempt.upload import Answer, upload
from finetune_trainer.check import Destination, check_job
from finetune_trainer.data.provider.file import convert
from finetune_trainer.data.provider.rules import NAMES, RULES, ProviderRules
from finetune_trainer.data.provider.token_estimate import estimated_tokens
from finetune_trainer.data.rows import Position, Row, Turn
from finetune_trainer.errors import TrainerError
from finetune_trainer.job import code_files
from finetune_trainer.prepare import convert_all, prepare, require_budget

PRICE = Price.model_validate({"perMillionTokens": "3.00", "asOf": "2026-11-01"})
OPENAI = RULES["openAI"]


def rows(count, content="answer"):
    return [
        Row(Position(line=n), (Turn("system", "Be brief."), Turn("user", f"question {n}"), Turn("assistant", content)))
        for n in range(count)
    ]


def data(folder: Path, count: int, name: str = "train.csv") -> dict[str, str]:
    path = folder / name
    path.write_text("prompt,completion\n" + "".join(f"question {n},answer {n}\n" for n in range(count)))
    return {"uri": path.as_uri()}


def job(folder, *, count=12, rules="openAI", **spec):
    dataset = {"train": data(folder, count), "validation": data(folder, 3, "validation.csv")}
    return PrepareJob.model_validate(
        {
            "namespace": "team",
            "name": "job",
            "uid": "u1",
            "attempt": 2,
            "rules": rules,
            "uploadURL": f"https://operator{UPLOAD_PATH}",
            "price": PRICE.wire(),
            "spec": {
                "connectionRef": {"name": "openai"},
                "baseModel": "gpt-4o-mini",
                "modelRef": {"name": "m"},
                "dataset": dataset,
                **spec,
            },
        }
    )


@pytest.fixture
def sent(monkeypatch):
    """Lets file:// be read as in `run`, and takes uploads in."""
    files = []

    def take(_job, file):
        files.append((file.split, file.path.read_bytes()))
        return ProviderFile(split=file.split, id=f"file-{file.split}", bytes=file.bytes, sha256=file.sha256)

    check, load = prepare_module.check_dataset, prepare_module.load_rows
    monkeypatch.setattr(prepare_module, "upload", take)
    monkeypatch.setattr(prepare_module, "check_dataset", lambda spec, **more: check(spec, allow_local=True, **more))
    monkeypatch.setattr(
        prepare_module, "load_rows", lambda *args, **more: load(*args, **(more | {"allow_local": True}))
    )
    return files


def run(made, folder):
    reporter = Reporter(made)
    prepare(made, reporter, folder)
    return reporter.report


def test_both_files_are_converted_and_passed_on(tmp_path, sent):
    report = run(job(tmp_path), tmp_path)
    assert report.phase == "Checked"
    assert [file.id for file in report.checked.files] == ["file-train", "file-validation"]
    assert report.dataset.train.rows == 12
    lines = [json.loads(line) for line in dict(sent)["train"].splitlines()]
    assert lines[3] == {
        "messages": [{"role": "user", "content": "question 3"}, {"role": "assistant", "content": "answer 3"}]
    }
    assert report.checked.tokens == 158  # two messages a row, of three and two tokens, of three each from the tenth on


def test_code_of_ones_own_goes_along(tmp_path, sent, monkeypatch):
    (tmp_path / "maps" / "recipe").mkdir(parents=True)
    (tmp_path / "maps" / "recipe" / "train.py").write_text("print()")
    packed = partial(code_files.pack, mounted=tmp_path / "maps")
    monkeypatch.setattr(prepare_module.code_files, "pack", packed)
    made = job(tmp_path, rules="sageMaker", code={"configMapRef": {"name": "recipe", "key": "train.py"}})
    report = run(made, tmp_path)
    assert [file.split for file in report.checked.files] == ["train", "validation", "code"]
    assert dict(sent)["code"] == b'{"files":{"train.py":"cHJpbnQoKQ=="}}\n'


def test_azure_gets_a_byte_order_mark(tmp_path, sent):
    run(job(tmp_path, rules="azureOpenAI"), tmp_path)
    assert all(content.startswith(BOM_UTF8) for _, content in sent)
    for _, content in sent:
        assert json.loads(content.decode("utf-8-sig").splitlines()[0])["messages"]


@pytest.mark.parametrize("name", ["openAI", "azureOpenAI"])
def test_a_row_whose_end_the_provider_cuts_is_warned_of_with_its_line(tmp_path, sent, name):
    (tmp_path / "long.csv").write_text("prompt,completion\n" + "a,b\n" * 11 + f"{'word ' * 80_000},b\n")
    given = job(tmp_path, rules=name, dataset={"train": {"uri": (tmp_path / "long.csv").as_uri()}})
    report = run(given, tmp_path)
    assert [split for split, _ in sent] == ["train"]
    (warning,) = [one for one in report.dataset.warnings if "cuts the end" in one]
    assert warning.startswith("long.csv: 1 row (the first: line 13) longer than about 65,536 tokens, beyond which")


def test_a_service_of_which_no_limit_is_known_is_not_said_to_cut_anything(tmp_path):
    long = Row(Position(line=1), (Turn("user", "word " * 80_000), Turn("assistant", "b")))
    assert list(convert([long], "train", "t.csv", RULES["openAICompatible"], tmp_path).warnings) == []


REFUSED = {
    "too few rows": ({"count": 9}, Reason.DATASET_INVALID, "9 rows; OpenAI tunes on at least 10"),
    "over budget": ({"budget": {"maxCost": "0.001"}}, Reason.BUDGET_EXCEEDED, "0.01 USD is above budget.maxCost 0.001"),
    "another currency": ({"budget": {"maxCost": "9", "currency": "EUR"}}, Reason.PRICE_UNKNOWN, "in EUR"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_nothing_leaves_the_pod_that_breaks_a_rule(tmp_path, sent, name):
    how, reason, words = REFUSED[name]
    with pytest.raises(TrainerError) as refused:
        run(job(tmp_path, **how), tmp_path)
    assert (refused.value.reason, words in refused.value.message) == (reason, True)
    assert refused.value.next_step
    assert sent == []


def test_where_answers_cannot_be_kept_is_said_before_anything_is_paid_for(tmp_path, sent, monkeypatch):
    monkeypatch.setattr("finetune_api.uris.CLAIMS_PATH", str(tmp_path))
    (tmp_path / "reports").write_text("a file, where a folder is to be")
    dataset = {"train": data(tmp_path, 12), "test": data(tmp_path, 3, "test.csv")}
    given = job(tmp_path, dataset=dataset, evaluation={"output": {"uri": "pvc://reports/tweets"}})
    with pytest.raises(TrainerError) as refused:
        run(given, tmp_path)
    said = f"spec.evaluation.output.uri: {tmp_path}/reports/tweets could not be written: Not a directory"
    assert (refused.value.reason, refused.value.message) == (Reason.ARTIFACT_FAILED, said)
    assert sent == []
    (tmp_path / "reports").unlink()
    assert run(given, tmp_path).phase == "Checked"
    assert [path.name for path in (tmp_path / "reports").rglob("*")] == ["tweets"]


@pytest.mark.usefixtures("sent")
def test_a_service_with_minima_of_its_own_gets_what_there_is(tmp_path):
    assert run(job(tmp_path, count=2, rules="openAICompatible"), tmp_path).phase == "Checked"


def test_a_file_that_is_too_large_once_converted_is_refused(tmp_path):
    with pytest.raises(TrainerError) as refused:
        convert(rows(100), "train", "train.jsonl", ProviderRules("the service", max_bytes=1000), tmp_path)
    assert refused.value.reason is Reason.DATASET_INVALID
    assert "train.jsonl" in refused.value.message


@pytest.mark.usefixtures("sent")
def test_a_file_that_changes_after_the_check_is_not_passed_on(tmp_path):
    made = job(tmp_path)
    verdict = prepare_module.check_dataset(made.spec, tokenizer=None)
    data(tmp_path, 13)
    with pytest.raises(TrainerError, match="has changed since it was checked"):
        convert_all(made.spec, verdict, OPENAI, tmp_path)


def test_checksum_and_size_are_those_of_the_file(tmp_path):
    made = convert(rows(5, "größer 😀"), "train", "t", OPENAI, tmp_path)
    content = made.path.read_bytes()
    assert (made.bytes, made.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert made.tokens == sum(map(estimated_tokens, rows(5, "größer 😀")))


def test_an_estimate_is_rounded_up_and_a_bill_to_the_nearest_cent():
    cost = estimate(1_000, 3, PRICE)
    assert (cost.estimated, cost.currency) == ("0.01", "USD")
    assert "2026-11-01" in cost.basis
    assert billed(cost, 2_001_000, PRICE).actual == "6.00"


def test_the_longest_glob_tells_the_price():
    prices = {"*": "9", "gpt-*": "5", "gpt-4o-mini*": "3"}
    models = {glob: {"training": {"perMillionTokens": text, "asOf": "2026-11-01"}} for glob, text in prices.items()}
    facts = Catalogue.model_validate({"providers": {"h": {"models": models}}}).of("h")
    assert facts.model("gpt-4o-mini-2024").training.per_million_tokens == "3"
    assert facts.model("gpt-5").training.per_million_tokens == "5"
    assert Catalogue().of("h").model("gpt-5").training is None


def test_what_was_tuned_has_the_facts_of_its_base_and_is_asked_at_its_own_price():
    asked = {"base": {"input": "1", "output": "2"}, "tuned": {"input": "3", "output": "4"}, "asOf": "2026-11-01"}
    model = {"training": PRICE.wire(), "answers": asked, "shutdown": "2027-01-14"}
    found = Catalogue.model_validate({"providers": {"h": {"models": {"gpt-4.1-*": model}}}}).of("h")
    bases = {"ft:gpt-4.1-mini:org::abc": "3", "gpt-4.1-mini-2025-04-14.ft-0123abcd-tone": "3", "gpt-4.1-mini": "1"}
    for name, price in bases.items():
        facts = found.model(name)
        assert (facts.training, str(facts.shutdown), facts.answers.base.input) == (PRICE, "2027-01-14", price)
    assert found.model("ft:gpt-4o:org::abc").training is None


def test_without_a_budget_no_price_is_needed(tmp_path):
    require_budget(job(tmp_path).spec, 10**12, None)


class Operator:
    """Answers in turn; the last one stays."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.urls = []
        self.now = 0.0
        self.slept = []

    def send(self, url, _file):
        self.urls.append(url)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds


def taken():
    return Answer(200, json.dumps({"split": "train", "id": "file-1", "bytes": 3, "sha256": "0" * 64}).encode())


def refusal(status, pause=0.0):
    return Answer(status, b'{"error": "because"}', pause)


def send(tmp_path, operator):
    file = convert(rows(1), "train", "t", OPENAI, tmp_path)
    return upload(job(tmp_path), file, send=operator.send, clock=lambda: operator.now, sleep=operator.sleep)


def test_an_upload_says_whose_it_is(tmp_path):
    operator = Operator(taken())
    assert send(tmp_path, operator).id == "file-1"
    [url] = operator.urls
    assert url.startswith(f"https://operator{UPLOAD_PATH}?")
    for part in ("namespace=team", "name=job", "uid=u1", "attempt=2", "split=train", "sha256="):
        assert part in url


PASSING = {
    "a restart": (OSError("reset"), [1.0]),
    "no leader": (refusal(503, 5.0), [5.0]),
    "patience": (refusal(429, 9.0), [9.0]),
    "a pod not seen yet": (refusal(403), [1.0]),
}


@pytest.mark.parametrize("name", PASSING)
def test_what_passes_is_waited_for(tmp_path, name):
    first, slept = PASSING[name]
    operator = Operator(first, taken())
    assert send(tmp_path, operator).id == "file-1"
    assert operator.slept == slept


AGAIN_AND_AGAIN = {
    "nothing is asked": (0.0, [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]),
    "back soon": (1.5, [1.5] * 7),
    "back late": (25.0, [25.0] * 7),
}


@pytest.mark.parametrize("name", AGAIN_AND_AGAIN)
def test_who_is_told_when_to_come_back_does_so_then_however_often(tmp_path, name):
    """The operator has them come back in a row: whoever waited longer by himself left its places empty."""
    asked, slept = AGAIN_AND_AGAIN[name]
    operator = Operator(*[refusal(503, asked)] * 7, taken())
    assert send(tmp_path, operator).id == "file-1"
    assert operator.slept == slept


@pytest.mark.parametrize("status", [400, 411, 413, 424])
def test_a_definite_no_is_said_at_once_in_the_operators_words(tmp_path, status):
    operator = Operator(refusal(status))
    with pytest.raises(TrainerError) as refused:
        send(tmp_path, operator)
    assert (refused.value.reason, refused.value.message, operator.slept) == (Reason.PROVIDER_REFUSED, "because", [])


@pytest.mark.parametrize(("status", "reason"), [(503, Reason.STORE_UNAVAILABLE), (403, Reason.PROVIDER_REFUSED)])
def test_it_gives_up_in_the_end(tmp_path, status, reason):
    operator = Operator(refusal(status))
    with pytest.raises(TrainerError) as given_up:
        send(tmp_path, operator)
    assert given_up.value.reason is reason
    assert operator.now <= 1800


def manifest(folder: Path, count: int) -> FineTuneJobManifest:
    spec = job(folder, count=count).spec
    metadata = {"name": "job", "namespace": "team"}
    head = {"apiVersion": "finetune.dev/v1alpha1", "kind": "FineTuneJob", "metadata": metadata}
    return FineTuneJobManifest.model_validate(head | {"spec": spec.wire()})


def test_a_check_without_a_cluster_goes_by_the_same_rules(tmp_path):
    good = check_job(manifest(tmp_path, 12), None, Destination("openAI"))
    assert (good.valid, "about 158 tokens for each epoch" in good.message) == (True, True)
    bad = check_job(manifest(tmp_path, 9), None, Destination("openAI"))
    assert (bad.valid, bad.reason, "at least 10" in bad.message) == (False, Reason.DATASET_INVALID, True)
    assert check_job(manifest(tmp_path, 9), None).valid
    assert check_job(manifest(tmp_path, 9), None, Destination("openAICompatible")).valid


def test_the_command_line_knows_every_providers_rules():
    assert PROVIDERS == NAMES
