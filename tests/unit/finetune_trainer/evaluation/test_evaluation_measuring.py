"""Everybody answers once, whatever is interrupted; a baseline that is not there is told and costs nothing else."""

import itertools
import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from finetune_api.job import Hyperparameters, LoRA
from finetune_api.trainer import ActiveVersionRef
from finetune_trainer.attempt.interruption import Interrupted, Interruption
from finetune_trainer.attempt.report import Reporter
from finetune_trainer.data import ChatTokenizer, Turn, check_dataset, encode, load_rows
from finetune_trainer.evaluation import generate, measuring, stored
from finetune_trainer.evaluation.contest import TUNED, ZERO_SHOT, Contestant, contest
from finetune_trainer.evaluation.judge import MAX_TOKENS
from finetune_trainer.evaluation.losses import loss_on
from finetune_trainer.evaluation.material import Material, Question, prepare
from finetune_trainer.evaluation.measuring import Measuring
from finetune_trainer.evaluation.models import Model, Tuned, base_of, left_out, version_in
from finetune_trainer.models import base_model
from finetune_trainer.models.adapters import with_adapters
from finetune_trainer.output import artifact
from finetune_trainer.storage.durable import whole_folder
from finetune_trainer.training.token_store import TokenStore
from tests.assets.tiny_model import NAME
from tests.assets.tiny_seq2seq import make_tiny_bart
from tests.unit.finetune_trainer.data.chat_templates import THINKING
from tests.unit.finetune_trainer.jobs import make_job

METRICS = ["chrF", "exactMatch"]


def adapted(cache, seed):
    """The tiny model with an adapter that changes what it says."""
    torch.manual_seed(seed)
    net = with_adapters(base_model.load_model(cache / NAME, dtype=torch.float32), LoRA(r=4), NAME)
    with torch.no_grad():
        for name, value in net.named_parameters():
            if "lora_B" in name:
                value.normal_(std=0.05)
    return net


class Bench:
    """A tuned model and a test set, without a training run."""

    def __init__(self, folder, cache, *, net=None, active=None, **evaluation):
        spec = {"metrics": METRICS, "maxNewTokens": 4} | evaluation
        self.job = make_job(folder, cache, splits=("train", "test"), evaluation=spec)
        self.job = self.job.model_copy(update={"active_version": active})
        chat = ChatTokenizer.from_folder(cache / NAME)
        self.verdict = check_dataset(self.job.spec, tokenizer=chat, allow_local=True)
        self.asked = prepare(self.job, chat, self.verdict, allow_local=True)
        rows = encode(load_rows(self.job.spec.dataset, "test", allow_local=True), chat, 1024)
        self.store = TokenStore((row.input_ids, row.labels) for row in rows)
        model = Model(net or adapted(cache, 1), base_model.load_tokenizer(cache / NAME), chat)
        self.tuned = Tuned(self.job, cache / NAME, model, torch.float32, token_budget=60)
        self.reports = []

    def measure(self, interruption=None):
        reporter = Reporter(self.job, listener=self.reports.append, interval=0.0)
        return Measuring(
            self.tuned,
            material=self.asked,
            test=self.store,
            trained_on="hash",
            reporter=reporter,
            interruption=interruption or Interruption(),
        ).measure()


@pytest.fixture(scope="module")
def version_one(tiny_model, tmp_path_factory):
    """An artifact of an earlier version: an adapter on the same base."""
    folder = tmp_path_factory.mktemp("version") / "model"
    chat = ChatTokenizer.from_folder(tiny_model / NAME)
    with whole_folder(folder, baseModel=NAME) as draft:
        artifact.save_weights(draft, adapted(tiny_model, 2))
        artifact.save_tokenizer(draft, base_model.load_tokenizer(tiny_model / NAME), chat)
    return folder


def test_everybody_is_asked_and_compared(tiny_model, tmp_path, version_one):
    baselines = [{"zeroShot": {}}, {"fewShot": {"examples": 3}}, {"activeVersion": {}}]
    active = ActiveVersionRef(version=1, folder=str(version_one))
    bench = Bench(tmp_path, tiny_model, active=active, baselines=baselines)
    contest = bench.measure()
    result = contest.result
    assert (result.rows, result.metric, result.test_sha256) == (12, "chrF", bench.verdict.test.sha256)
    assert (result.baselines.active_version.version, result.baselines.few_shot.examples) == (1, 3.0)
    assert all(one.verdict and one.difference.chr_f and one.chr_f is not None for one in result.baselines.all())
    assert result.tokens_per_answer.few_shot > 2 * result.tokens_per_answer.tuned
    saved = 1 - result.tokens_per_answer.tuned / result.tokens_per_answer.few_shot
    assert result.tokens_per_answer.saved == pytest.approx(saved, abs=1e-3)
    said = {name: tuple(one.answers) for name, one in contest.contestants.items()}
    assert len(set(said.values())) == 4
    assert bench.reports[-1].progress.answers == bench.reports[-1].progress.total_answers == 48
    first = next(contest.rows())
    assert (first["row"], set(first["answers"]["fewShot"])) == ("line 1", {"answer", "chrF", "exactMatch"})


def test_an_empty_thought_that_the_template_has_taught_is_none_of_the_answer(tiny_model, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    shutil.copytree(tiny_model / NAME, cache / NAME)
    (cache / NAME / "chat_template.jinja").write_text(THINKING)
    bench = Bench(tmp_path, cache, metrics=["exactMatch"])
    rights = itertools.cycle([one.completion for one in bench.asked.questions])

    def said(_net, prompts, **_how):
        ids = bench.tuned.model.chat.ids
        yield [(place, ids([f"<think>\n\n</think>\n\n{next(rights)}"])[0]) for place in range(len(prompts))]

    monkeypatch.setattr(measuring, "generated", said)
    assert bench.measure().result.tuned.exact_match == 1


@pytest.mark.parametrize(
    ("question", "limit", "room"),
    [
        (100, 60, (452, 60)),
        (500, 60, (452, 60)),
        (100, 8192, (100, 412)),
        (300, 8192, (256, 256)),
        (5000, 300, (256, 256)),
    ],
)
def test_an_answer_gives_way_to_the_questions_down_to_half_of_the_context(tiny_model, tmp_path, question, limit, room):
    assert Bench(tmp_path, tiny_model).tuned.model.room(question, limit) == room


def test_answers_and_questions_that_the_context_has_cut_are_told(tiny_model, tmp_path, monkeypatch):
    bench = Bench(tmp_path, tiny_model, maxNewTokens=4096)
    long = Question("line 13", (Turn("user", "word " * 900),), "red")
    questions = [*bench.asked.questions, long]
    bench.asked = Material(questions, bench.asked.max_new_tokens, bench.asked.examples, bench.asked.sha256)
    monkeypatch.setattr(
        measuring, "generated", lambda _net, prompts, **_how: iter([[(place, [5]) for place in range(len(prompts))]])
    )
    assert bench.measure().result.missing == (
        "asked without the beginning of 1 question longer than 256 tokens: the model's context holds no more; "
        "answers end at 256 tokens, not at 4,096: the model's context holds no more"
    )


def test_no_answer_is_longer_than_the_positions_of_an_encoder_decoder(tmp_path):
    folder = make_tiny_bart(tmp_path)
    net = base_model.load_model(folder, dtype=torch.float32)
    model = Model(net, base_model.load_tokenizer(folder), ChatTokenizer.from_folder(folder))
    room = model.room(5000, 8192)
    assert room == (128, 128)
    said = "asked without the end of 1 question longer than {} tokens: training cuts them so too ({})"
    positions = said.format(128, "the 128 tokens that the base model has positions for")
    assert next(left_out(room, [5000, 100], 8, model.chat, Hyperparameters())) == positions
    asked_for = left_out(
        model.room(5000, 8, trained=32), [5000, 32], 8, model.chat, Hyperparameters(max_sequence_length=32)
    )
    assert next(asked_for) == said.format(32, "maxSequenceLength 32")
    generation = model.generation
    generation.eos_token_id = None
    ((_, said),) = next(
        generate.generated(net, [[5] * 128], generation=generation, max_new_tokens=room.answer, token_budget=1)
    )
    assert len(said) == 128


def test_trap_08_losses_are_weighted_by_token_and_do_not_depend_on_batches(tiny_model, tmp_path):
    bench = Bench(tmp_path, tiny_model)
    net = bench.tuned.model.net
    found = [
        loss_on(net, bench.store, token_budget=budget, compute_dtype=torch.float32, interruption=Interruption())
        for budget in (1, 300)
    ]
    total, tokens = 0.0, 0
    for number in range(len(bench.store)):
        ids, labels = (torch.from_numpy(part)[None] for part in bench.store.row(number))
        with torch.no_grad():
            mean = net(input_ids=ids, labels=labels).loss
        count = int((labels[:, 1:] != -100).sum())
        total, tokens = total + float(mean) * count, tokens + count
    assert found == [pytest.approx(total / tokens, rel=1e-5)] * 2
    result = bench.measure().result
    assert result.tuned.loss == pytest.approx(total / tokens, rel=1e-4)
    assert result.tuned.perplexity == pytest.approx(math.exp(total / tokens), rel=1e-3)


def test_the_base_model_has_its_loss_even_where_it_is_no_baseline(tiny_model, tmp_path):
    result = Bench(tmp_path, tiny_model, baselines=[{"fewShot": {}}]).measure().result
    base = result.baselines.zero_shot
    assert base.loss != result.tuned.loss
    assert (base.chr_f, base.verdict) == (None, None)


@pytest.mark.alike
@pytest.mark.parametrize("stopped_after", [1, 7, 12])
def test_an_interrupted_evaluation_asks_nobody_twice_and_ends_the_same(
    tiny_model, tmp_path, monkeypatch, stopped_after
):
    baselines = [{"zeroShot": {}}, {"fewShot": {"examples": 2}}]
    straight = Bench(tmp_path / "straight", tiny_model, baselines=baselines).measure()
    asked = []
    original = generate._new_tokens

    def counted(model, prompts, *rest):
        asked.append(len(prompts))
        return original(model, prompts, *rest)

    monkeypatch.setattr(generate, "_new_tokens", counted)
    bench = Bench(tmp_path / "broken", tiny_model, baselines=baselines)
    interruption, kept = Interruption(), measuring.Measuring._keep
    with monkeypatch.context() as patch:

        def stopping(self, *args):
            kept(self, *args)
            if len(asked) == stopped_after:
                interruption.request()

        patch.setattr(measuring.Measuring, "_keep", stopping)
        with pytest.raises(Interrupted):
            bench.measure(interruption)
    assert 0 < sum(asked) < 36
    again = bench.measure()
    assert sum(asked) == 36
    assert again.result == straight.result
    assert list(again.rows()) == list(straight.rows())


def test_a_test_set_that_comes_in_portions_is_measured_as_one_that_does_not(tiny_model, tmp_path, monkeypatch):
    baselines = [{"zeroShot": {}}, {"fewShot": {"examples": 2}}]
    whole = Bench(tmp_path / "whole", tiny_model, baselines=baselines).measure()
    monkeypatch.setattr(stored, "PORTION", 5)
    parts = Bench(tmp_path / "parts", tiny_model, baselines=baselines).measure()
    assert parts.result == whole.result
    assert list(parts.rows()) == list(whole.rows())


def test_a_newer_attempt_is_not_written_over(tiny_model, tmp_path):
    from finetune_trainer.attempt.fence import Fence

    bench, interruption = Bench(tmp_path, tiny_model), Interruption()
    Path(bench.job.output).mkdir(parents=True)
    interruption.stop_when_superseded(Fence(Path(bench.job.output), 1))
    Fence(Path(bench.job.output), 2).take()
    with pytest.raises(Interrupted):
        bench.measure(interruption)


def test_the_active_version_leaves_nothing_in_the_tuned_model(tiny_model, tmp_path, version_one):
    bench = Bench(tmp_path, tiny_model)
    net = bench.tuned.model.net
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with version_in(bench.tuned, version_one) as other:
        ids = torch.tensor([[1, 5, 9]])
        asked = other.net(input_ids=ids).logits
    expected = adapted(tiny_model, 2)(input_ids=ids).logits
    torch.testing.assert_close(asked, expected)
    after = net.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert set(net.peft_config) == {"default"}


def test_a_whole_model_is_compared_with_an_adapter_and_its_base(tiny_model, tmp_path, version_one):
    whole = base_model.load_model(tiny_model / NAME, dtype=torch.float32)
    bench = Bench(tmp_path, tiny_model, net=whole)
    ids = torch.tensor([[1, 5, 9]])
    with base_of(bench.tuned) as base:
        assert base.net is not whole
        torch.testing.assert_close(base.net(input_ids=ids).logits, whole(input_ids=ids).logits)
    with version_in(bench.tuned, version_one) as other:
        torch.testing.assert_close(other.net(input_ids=ids).logits, adapted(tiny_model, 2)(input_ids=ids).logits)


@pytest.mark.parametrize(
    ("active", "says"),
    [
        (None, "the model had no active version when the attempt started"),
        (ActiveVersionRef(version=4), "its weights are not where the trainer can reach them"),
        (ActiveVersionRef(version=4, folder="/nowhere/model"), "ModelUnusable: /nowhere/model is not a folder"),
    ],
)
def test_an_active_version_that_cannot_be_asked_is_told(tiny_model, tmp_path, active, says):
    result = Bench(tmp_path, tiny_model, active=active, baselines=[{"activeVersion": {}}]).measure().result
    assert (result.baselines.active_version.problem, result.baselines.active_version.verdict) == (says, None)
    assert result.verdict is None
    assert result.tuned.chr_f is not None


def test_an_active_version_that_does_not_fit_its_base_is_told_and_leaves_nothing(tiny_model, tmp_path, version_one):
    with whole_folder(tmp_path / "wide", baseModel=NAME) as draft:
        shutil.copytree(version_one, draft, dirs_exist_ok=True)
        weights = load_file(draft / "adapter_model.safetensors")
        name = next(name for name in weights if "lora_A" in name)
        save_file(weights | {name: torch.zeros(4, 7)}, draft / "adapter_model.safetensors")
    active = ActiveVersionRef(version=4, folder=str(tmp_path / "wide"))
    bench = Bench(tmp_path, tiny_model, active=active, baselines=[{"activeVersion": {}}])
    result = bench.measure().result
    assert "wide cannot be loaded (RuntimeError)" in result.baselines.active_version.problem
    assert set(bench.tuned.model.net.peft_config) == {"default"}
    assert bench.tuned.model.net.active_adapters == ["default"]


def test_an_active_version_whose_template_takes_other_conversations_is_told(tiny_model, tmp_path, version_one):
    with whole_folder(tmp_path / "strict", baseModel=NAME) as draft:
        shutil.copytree(version_one, draft, dirs_exist_ok=True)
        (draft / "chat_template.jinja").write_text("{{ raise_exception('no system message, please') }}")
    active = ActiveVersionRef(version=4, folder=str(tmp_path / "strict"))
    result = Bench(tmp_path, tiny_model, active=active, baselines=[{"activeVersion": {}}]).measure().result
    assert "its chat template does not take" in result.baselines.active_version.problem
    assert result.tuned.chr_f is not None


def test_a_training_set_without_examples_is_told(tiny_model, tmp_path):
    bench = Bench(tmp_path, tiny_model, baselines=[{"zeroShot": {}}, {"fewShot": {}}])
    shutil.copy(tmp_path / "test.jsonl", tmp_path / "train.jsonl")
    unchecked = bench.verdict.model_copy(update={"train": None})
    bench.asked = prepare(bench.job, bench.tuned.model.chat, unchecked, allow_local=True)
    found = bench.measure().result.baselines
    assert "there are no examples" in found.few_shot.problem
    assert found.zero_shot.verdict


def test_a_context_without_room_for_any_example_makes_no_comparison_with_examples(tiny_model, tmp_path, monkeypatch):
    bench = Bench(tmp_path, tiny_model, baselines=[{"fewShot": {}}])
    long = Question("line 13", (Turn("user", "word " * 900),), "red")
    bench.asked = Material([long], bench.asked.max_new_tokens, bench.asked.examples, bench.asked.sha256)
    said = iter([[[(0, [5])]]])  # the tuned model's; the base model is not asked in vain
    monkeypatch.setattr(measuring, "generated", lambda *_asked, **_how: next(said))
    found = bench.measure().result
    assert (found.verdict, found.baselines.few_shot.exact_match) == (None, None)
    assert found.baselines.few_shot.problem == "the model's context has room for no example before any question"


def test_a_baseline_that_has_no_room_to_think_is_told_so():
    asked = Material([Question(f"line {row}", (Turn("user", "?"),), "red") for row in range(8)], 8)
    thinking = Contestant(["<think>\nOkay, so the"] * 7 + ["<think></think>red"], problem="1 row was not answered")
    found = contest(asked, ["exactMatch"], {TUNED: Contestant(["red"] * 8), ZERO_SHOT: thinking}, {})
    assert found.result.baselines.zero_shot.exact_match == 1 / 8
    assert found.result.baselines.zero_shot.problem == (
        "1 row was not answered; 7 of its answers ended in a thought: a higher evaluation.maxNewTokens has room for it"
    )


def test_an_endpoint_that_is_not_there_costs_only_its_own_column(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr("finetune_trainer.evaluation.endpoint.TRIES", 1)
    endpoint = {"endpoint": {"name": "rag", "url": "http://127.0.0.1:1/v1", "model": "m"}}
    contest = Bench(tmp_path, tiny_model, baselines=[{"zeroShot": {}}, endpoint]).measure()
    (found,) = contest.result.baselines.endpoints
    assert (found.name, found.rows, found.errors, found.verdict) == ("rag", 0, 12, None)
    assert "it cannot be reached" in found.problem
    assert contest.result.verdict == contest.result.baselines.zero_shot.verdict
    assert json.dumps(next(contest.rows()))


def test_an_endpoint_is_compared_on_the_rows_that_it_answered(tiny_model, tmp_path, monkeypatch):
    from finetune_trainer.evaluation import endpoint as asking
    from finetune_trainer.evaluation.kept import Answer

    monkeypatch.setenv("FINETUNE_ENDPOINT_KEY_MY_RAG", "sk-1")
    baselines = [{"endpoint": {"name": "my-rag", "url": "http://127.0.0.1:1/v1", "model": "m"}}]
    bench = Bench(tmp_path, tiny_model, baselines=baselines, metrics=["exactMatch"])

    def right_but_for_two(_endpoint, key, asked, *, max_tokens, on_answer, way):
        assert (key, max_tokens, len(asked), way) == ("sk-1", 4, 12, None)
        for row, _ in asked[2:]:
            on_answer(Answer(row, bench.asked.questions[row].completion, 20))
        return asking.Outcome(errors=2, problems={"HTTP 500": 2})

    monkeypatch.setattr(asking, "ask", right_but_for_two)
    (found,) = bench.measure().result.baselines.endpoints
    assert (found.exact_match, found.rows, found.errors, found.prompt_tokens) == (1.0, 10, 2, 20.0)
    assert (found.verdict, found.problem) == ("Worse", "2 rows were not answered: HTTP 500")


def test_a_judge_compares_with_every_baseline_and_is_asked_once(tiny_model, tmp_path, monkeypatch):
    from finetune_trainer.evaluation import endpoint as asking
    from finetune_trainer.evaluation.kept import Answer

    monkeypatch.setenv("FINETUNE_JUDGE_KEY", "sk-2")
    judge = {"url": "https://judge.example.com/v1", "model": "m"}
    baselines = [{"zeroShot": {}}, {"fewShot": {}}, {"activeVersion": {}}]
    bench = Bench(tmp_path, tiny_model, baselines=baselines, judge=judge)
    asked = []

    def favours_the_tuned_model(service, key, left, *, max_tokens, on_answer):
        assert (service.model, key, max_tokens) == ("m", "sk-2", MAX_TOKENS)
        asked.extend(number for number, _ in left)
        for number, _ in left:
            on_answer(Answer(number, "A" if number % 2 == 0 else "B"))
        return asking.Outcome()

    monkeypatch.setattr(asking, "ask", favours_the_tuned_model)
    contest = bench.measure()
    found = contest.result.baselines
    for judged in (found.zero_shot.judged, found.few_shot.judged):
        assert (judged.wins + judged.ties, judged.losses, judged.errors, judged.verdict) == (12, 0, 0, "Better")
    assert found.active_version.judged is None
    progress = bench.reports[-1].progress
    assert progress.answers == progress.total_answers == 4 * 12 + 3 * 2 * 12  # who is not there is not waited for
    assert next(contest.rows())["answers"]["zeroShot"]["judge"] in ("win", "tie")
    before = len(asked)
    assert bench.measure().result == contest.result
    assert len(asked) == before > 20


def test_a_judge_that_is_not_there_is_told_beside_what_an_endpoint_did_not_answer(tiny_model, tmp_path, monkeypatch):
    from finetune_trainer.evaluation import endpoint as asking
    from finetune_trainer.evaluation.kept import Answer

    service = {"url": "https://rag.example.com/v1", "model": "m"}
    bench = Bench(tmp_path, tiny_model, baselines=[{"endpoint": {"name": "rag", **service}}], judge=service)

    def answers(asked_of, _key, left, *, on_answer, **_how):
        if not hasattr(asked_of, "name"):
            return asking.Outcome(len(left), {"HTTP 500": len(left)})
        for number, _ in left[:-1]:
            on_answer(Answer(number, "half of an emoji: \ud83d"))
        return asking.Outcome(1, {"HTTP 400": 1})

    monkeypatch.setattr(asking, "ask", answers)
    (found,) = bench.measure().result.baselines.endpoints
    first, second = "1 row was not answered: HTTP 400", "judge: 22 questions were not answered: HTTP 500"
    assert found.problem == f"{first}; {second}; judge: no verdict by rulings on 0 of 11 rows"


def test_a_judge_whose_words_cannot_be_read_is_told_as_such(tiny_model, tmp_path, monkeypatch):
    from finetune_trainer.evaluation import endpoint as asking
    from finetune_trainer.evaluation.kept import Answer

    judge = {"url": "https://judge.example.com/v1", "model": "m"}
    bench = Bench(tmp_path, tiny_model, baselines=[{"zeroShot": {}}], judge=judge)

    def talks(_service, _key, left, *, max_tokens, on_answer):
        for number, _ in left:
            on_answer(Answer(number, f"The first one is right, I think ({max_tokens})."))
        return asking.Outcome()

    monkeypatch.setattr(asking, "ask", talks)
    found = bench.measure().result.baselines.zero_shot
    assert found.judged.errors > 1
    assert found.problem == (
        f"judge: on {found.judged.errors} rows it did not begin with A, B or Tie: another model may do as it is asked; "
        f"judge: no verdict by rulings on {found.judged.ties} of {found.judged.ties + found.judged.errors} rows"
    )
    assert found.judged.verdict is None
