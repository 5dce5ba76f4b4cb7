"""Learning from two answers, a chosen and a rejected one: whole runs, and what they are compared with."""

import json
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from finetune_api.exit_codes import ExitCode
from finetune_api.preference import Preference
from finetune_trainer.computing.attention import kept_apart
from finetune_trainer.data import IGNORED
from finetune_trainer.training import objective, reference
from finetune_trainer.training.pair_store import PairStore
from finetune_trainer.training.passes import Cut, document_log_likelihoods, packed, padded
from finetune_trainer.training.token_store import TokenStore
from tests.assets.tiny_model import make_tiny_model
from tests.unit.finetune_trainer.attempt.stop_requests import STOPPED, terminate
from tests.unit.finetune_trainer.computing import ranks
from tests.unit.finetune_trainer.jobs import COLOURS, make_preference_job
from tests.unit.finetune_trainer.training import references
from tests.unit.finetune_trainer.training_runs import broken_off_after, do, same_result

SHORT = {"epochs": 0.6}


def lines_of(job):
    return [json.loads(line) for line in (Path(job.output) / "metrics.jsonl").open()]


def steps_of(job):
    return [line for line in lines_of(job) if "loss" in line]


@pytest.fixture(scope="module")
def tuned(tiny_model, tmp_path_factory):
    job = make_preference_job(
        tmp_path_factory.mktemp("tuned"),
        tiny_model,
        splits=("train", "validation", "test"),
        preference={"beta": 0.2},
        hyperparameters={"epochs": 3.6},
        evaluation={"maxNewTokens": 4},
    )
    return job, *do(job)


def assert_prefers_chosen(job, report):
    first, last = report.loss.train[0], report.loss.validation[-1]
    assert first.value == pytest.approx(0.6931, abs=0.01), "nothing is preferred by a model that is its own reference"
    assert last.value < 0.5
    assert last.reward_accuracy == 1
    assert last.reward_margin > 0.5
    assert (report.result.reward_accuracy, report.result.reward_margin) == (1, last.reward_margin)
    assert report.result.eval_loss == last.value
    assert [line["pairs"] for line in steps_of(job)] == [8] * 18
    assert report.loss.train[-1].reward_margin > report.loss.train[0].reward_margin


def test_adapters_learn_to_prefer_what_was_chosen(tuned):
    job, code, report, phases = tuned
    assert code == ExitCode.OK, report.failure
    assert phases == ["Validating", "Running", "Evaluating", "Succeeded"]
    assert_prefers_chosen(job, report)


def test_all_weights_learn_to_prefer_what_was_chosen_without_a_second_model(tiny_model, tmp_path):
    hyper = {"epochs": 3.6, "learningRate": 0.001}
    job = make_preference_job(tmp_path, tiny_model, method="Full", hyperparameters=hyper)
    code, report, _ = do(job)
    assert code == ExitCode.OK, report.failure
    assert_prefers_chosen(job, report)


def test_a_4_bit_base_is_its_adapters_reference_and_the_result_can_be_merged(tmp_path):
    make_tiny_model(tmp_path / "models", width=64)
    job = make_preference_job(
        tmp_path, tmp_path / "models", method="QLoRA", hyperparameters=SHORT, artifact={"merge": True}
    )
    code, report, _ = do(job)
    assert code == ExitCode.OK, report.failure
    assert report.loss.train[0].value == pytest.approx(0.6931, abs=0.02)
    assert (Path(job.output) / "model" / "model.safetensors").is_file()


def test_the_evaluation_asks_for_the_chosen_answers(tuned):
    job, _, report, _ = tuned
    assert report.evaluation.rows == 12
    assert report.evaluation.tuned.loss > 0
    rows = [json.loads(line) for line in (Path(job.output) / "model" / "evaluation.jsonl").open()]
    assert {row["completion"] for row in rows} <= set(COLOURS)


def test_the_artifact_says_how_it_was_learnt(tuned):
    folder = Path(tuned[0].output) / "model"
    card = (folder / "README.md").read_text()
    assert '"dpo"' in card
    assert "| objective | DPO (arXiv 2305.18290)" in card
    assert "| beta | 0.2 |" in card
    assert "| validation loss, DPO loss per row |" in card
    assert "| reward accuracy | 1 |" in card
    page = (folder / "report.html").read_text()
    assert "DPO, beta 0.2" in page
    assert ", chosen: " in page
    assert ", rejected: " in page
    assert "loss (nats per pair)" in (folder / "loss.svg").read_text()


def test_a_run_that_was_ended_goes_on_as_if_nothing_had_been_and_asks_the_reference_nothing_twice(
    tiny_model, tmp_path, monkeypatch
):
    spec = {"lora": {"dropout": 0.1}, "hyperparameters": {"epochs": 2, "checkpointSteps": 2}}
    straight, broken = (make_preference_job(tmp_path / kind, tiny_model, **spec) for kind in ("a", "b"))
    assert do(straight)[0] == ExitCode.OK
    with broken_off_after(7):
        assert do(broken)[0] != ExitCode.OK
    monkeypatch.setattr(reference, "margins_of", lambda *_: pytest.fail("it was asked again"))
    assert do(broken)[0] == ExitCode.OK
    same_result(straight, broken)


def test_sigterm_while_the_reference_is_asked_keeps_what_it_has_said(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr(reference, "SORTED_TOGETHER", 8)
    straight, broken = (
        make_preference_job(tmp_path / kind, tiny_model, hyperparameters={"epochs": 1, "microBatchSize": 4})
        for kind in ("a", "b")
    )
    asked = []

    def counted(model, batch):
        asked.append(len(batch["reference"]))
        if len(asked) == 5:  # two passes for 8 rows: this is the first of the third 8
            terminate()
        return objective.margins_of(model, batch)

    with monkeypatch.context() as patch:
        patch.setattr(reference, "margins_of", counted)
        code, report, _ = do(broken)
    assert (code, report.phase) == STOPPED
    assert asked == [4] * 5
    assert not steps_of(broken)
    asked.clear()
    with monkeypatch.context() as patch:
        patch.setattr(reference, "margins_of", lambda *args: asked.append(1) or objective.margins_of(*args))
        assert do(broken)[0] == ExitCode.OK
    assert len(asked) == (40 - 16) / 4 + 12 / 4
    assert do(straight)[0] == ExitCode.OK
    same_result(straight, broken)


def test_after_a_shortage_the_step_is_done_again_in_halves_and_learns_the_same(tiny_model, tmp_path, monkeypatch):
    hyper = SHORT | {"microBatchSize": 8}
    plain, short = (make_preference_job(tmp_path / kind, tiny_model, hyperparameters=hyper) for kind in ("a", "b"))
    assert do(plain)[0] == ExitCode.OK
    seen, original = [], objective.document_labels

    def fails(batch, documents):
        seen.append(len(batch["reference"]))
        if seen[-1] > 4:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return original(batch, documents)

    monkeypatch.setattr(objective, "document_labels", fails)
    code, report, _ = do(short)
    assert code == ExitCode.OK, report.failure
    assert seen[:3] == [8, 4, 4]
    assert report.memory.halvings == 1
    losses = [[line["loss"] for line in steps_of(job)] for job in (plain, short)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


@pytest.mark.parametrize(
    ("work", "spec"),
    [
        (ranks.do, {"hyperparameters": SHORT}),
        (ranks.do_sharing, {"hyperparameters": SHORT | {"learningRate": 0.003}, "method": "Full"}),
    ],
    ids=["each holds it", "both share it"],
)
def test_two_ranks_come_to_the_losses_and_measures_of_one(tiny_model, tmp_path, work, spec):
    jobs = [make_preference_job(tmp_path / kind, tiny_model, **spec) for kind in ("one", "two")]
    both = ranks.started(jobs[1].model_copy(update={"report": None}), 2, work)
    assert do(jobs[0])[0] == ExitCode.OK
    assert ranks.ended(both) == [0, 0]
    one, two = map(lines_of, jobs)
    assert len(one) == len(two) > 3
    for expected, got in zip(one, two, strict=True):
        assert got == pytest.approx(expected, rel=1e-3, abs=1e-4)


def net():
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(vocab_size=32, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
    )


def store():
    rows = [([5, 6, 7 + row, 8], [IGNORED, IGNORED, 7 + row, 8]) for row in range(8)]
    return PairStore(TokenStore(rows))


def asked(model, folder, fingerprint):
    """The margins by a model, or by what is kept in the folder."""
    found = store()
    references.fill(found, model, folder, fingerprint, Cut(64))
    return found.reference.tolist()


def test_what_the_reference_said_is_the_difference_of_log_likelihoods(tmp_path):
    model, pairs = net(), store()
    expected = []
    with torch.no_grad():
        for row in range(len(pairs)):
            said = []
            for number in (2 * row, 2 * row + 1):
                ids, labels = map(torch.from_numpy, pairs.documents.row(number))
                loss = model(input_ids=ids[None], labels=labels[None]).loss
                said.append(-float(loss) * 2)  # two tokens carry loss
            expected.append(said[0] - said[1])
    assert asked(model, tmp_path, "job") == pytest.approx(expected, rel=1e-4)


def test_an_answer_that_begins_with_the_second_token_is_its_own_documents_in_a_packed_pass():
    documents = TokenStore([([5, 6, 7], [IGNORED, 6, 7]), ([8, 9], [IGNORED, 9]), ([4, 3, 2], [IGNORED, IGNORED, 2])])
    model, rows = net().eval(), range(3)
    with torch.no_grad():
        alone = [float(document_log_likelihoods(model, padded(documents, [row]), 1)) for row in rows]
        with kept_apart(model):
            together = document_log_likelihoods(model, packed(documents, list(rows)), 3)
    assert together.tolist() == pytest.approx(alone, rel=1e-4)


@pytest.mark.parametrize("cut", [Cut(64, packed=True), Cut(64)])
def test_the_loss_of_chosen_answers_is_the_mean_of_each_ones_tokens(cut):
    model, pairs = net().eval(), unequal_pairs()
    (batch,) = objective.pair_passes(pairs, [0, 1, 2], cut)
    chosen = [torch.from_numpy(ids)[None] for ids, _ in map(pairs.documents.row, (0, 2, 4))]
    with torch.no_grad():
        expected = sum(float(model(input_ids=ids, labels=ids).loss) for ids in chosen)
        with kept_apart(model) if cut.packed else nullcontext():
            sums = objective.by_preference(Preference()).sums(model, batch)
    assert float(sums[3]) == pytest.approx(expected, rel=1e-4)


def unequal_pairs():
    """Of 6, 8 and 8 tokens."""
    lengths = (4, 2, 3, 5, 4, 4)
    pairs = PairStore(TokenStore((range(1, length + 1), [IGNORED, *range(2, length + 1)]) for length in lengths))
    pairs.reference[:] = 0
    return pairs


def test_a_pair_is_as_long_as_both_documents_and_as_wide_as_the_longer_one_twice():
    pairs = unequal_pairs()
    assert (pairs.lengths.tolist(), pairs.widths.tolist()) == ([6, 8, 8], [8, 10, 8])
    assert (len(pairs), pairs.tokens, pairs.labelled, pairs.longest, pairs.largest_id) == (3, 22, 16, 10, 5)


@pytest.mark.parametrize(
    ("cut", "sizes"),
    [
        (Cut(14, packed=True), [14, 8]),
        (Cut(13, packed=True), [8, 8, 6]),
        (Cut(18), [10, 16]),
        (Cut(30), [30]),
        (Cut(30, rope_switch=4), [10, 16]),
        (Cut(30, packed=True, rope_switch=4), [8, 14]),
        (Cut(None, 2), [20, 8]),
    ],
)
def test_passes_of_pairs_hold_both_documents_and_stay_within_their_budget(cut, sizes):
    passes = objective.pair_passes(unequal_pairs(), [0, 1, 2], cut)
    assert [one["input_ids"].numel() for one in passes] == sizes
    assert sum(len(one["reference"]) for one in passes) == 3


@pytest.mark.parametrize("spoil", ["nothing", "another job", "damage", "more rows"])
def test_only_what_the_same_job_has_kept_whole_is_taken(tmp_path, monkeypatch, spoil):
    model = net()
    said = asked(model, tmp_path, "job")
    file = tmp_path / "reference-train.safetensors"
    assert [path.name for path in tmp_path.iterdir()] == [file.name]
    if spoil == "damage":
        file.write_bytes(file.read_bytes()[:-3])
    if spoil == "more rows":
        save_file({"margins": torch.zeros(9)}, file, metadata={"fingerprint": "job"})
    calls = []
    monkeypatch.setattr(reference, "margins_of", lambda *args: calls.append(1) or objective.margins_of(*args))
    assert asked(model, tmp_path, "other" if spoil == "another job" else "job") == said
    assert bool(calls) == (spoil != "nothing")
    assert load_file(file)["margins"].tolist() == said
