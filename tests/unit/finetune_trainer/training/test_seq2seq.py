"""Encoder-decoders: tokens, labels and loss one by one, and whole runs of tiny T5, BART and Pegasus models."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import normalizers

from finetune_api.exit_codes import ExitCode
from finetune_trainer.check import cached_tokenizer
from finetune_trainer.data import IGNORED, ChatTokenizer, Position, Row, Tally, Turn, encode
from finetune_trainer.data.encode import NOTE_LOST_IN_ANSWERS, NOTE_LOST_IN_PROMPTS
from finetune_trainer.data.verdict import check_dataset
from finetune_trainer.evaluation import measuring
from finetune_trainer.training.passes import Cut, labelled, loss_sum, padded, passes_of
from finetune_trainer.training.token_store import TokenStore
from tests.assets.tiny_seq2seq import BART, PEGASUS, T5, make_tiny_bart, make_tiny_pegasus, make_tiny_t5
from tests.unit.finetune_trainer.jobs import make_job
from tests.unit.finetune_trainer.training_runs import broken_off_after, do, same_result

SYSTEM, PROMPT, ANSWER = "Answer with one word.", "What colour is number 7 very red?", "red"
ROW = Row(Position(1), (Turn("system", SYSTEM), Turn("user", PROMPT), Turn("assistant", ANSWER)))
TEXTS = [
    ("yes", "no"),
    ("one two three four five", "six"),
    ("good", "bad happy sad"),
    ("red green blue?", "yes no yes"),
]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoder-decoders")
    make_tiny_t5(folder)
    make_tiny_bart(folder)
    make_tiny_pegasus(folder)
    return folder


def rows_of(texts):
    return [Row(Position(i), (Turn("user", p), Turn("assistant", c))) for i, (p, c) in enumerate(texts)]


def store_of(cache, name, texts=TEXTS):
    chat = ChatTokenizer.from_folder(cache / name)
    encoded = encode(rows_of(texts), chat, 64)
    return TokenStore(((row.input_ids, row.labels) for row in encoded), decoder_start=chat.decoder_start)


def load(cache, name):
    from transformers import AutoModelForSeq2SeqLM

    return AutoModelForSeq2SeqLM.from_pretrained(cache / name).eval()


@pytest.mark.parametrize(("name", "make"), [(T5, make_tiny_t5), (BART, make_tiny_bart), (PEGASUS, make_tiny_pegasus)])
def test_the_models_of_these_tests_are_the_same_in_every_run(cache, name, make, tmp_path):
    make(tmp_path)
    for file in ("tokenizer.json", "model.safetensors"):
        assert (tmp_path / name / file).read_bytes() == (cache / name / file).read_bytes(), file


@pytest.mark.parametrize("name", [T5, BART, PEGASUS])
def test_prompt_and_answer_are_tokenised_as_the_models_own_tokenizer_does(cache, name):
    from transformers import AutoTokenizer

    own = AutoTokenizer.from_pretrained(cache / name)
    chat = ChatTokenizer.from_folder(cache / name)
    (row,) = encode([ROW], chat, 64)
    prompt, answer = own(f"{SYSTEM}\n{PROMPT}")["input_ids"], own(text_target=ANSWER)["input_ids"]
    assert list(row.input_ids) == prompt + answer
    assert list(row.labels) == [IGNORED] * len(prompt) + answer
    assert prompt[-1] == answer[-1] == own.eos_token_id
    assert chat.prompt_ids(ROW.prompt) == prompt
    again = ChatTokenizer.from_transformers(own, decoder_start=chat.decoder_start)
    assert again.prompt_ids(ROW.prompt) == prompt


def test_a_cut_prompt_keeps_its_end_token_and_a_cut_answer_has_none(cache):
    chat = ChatTokenizer.from_folder(cache / T5)
    whole = next(encode(rows_of([("one two three four", "good bad happy sad")]), chat, 64))
    cut = next(encode(rows_of([("one two three four", "good bad happy sad")]), chat, 3))
    answer = [label for label in whole.labels if label != IGNORED]
    assert list(cut.input_ids) == [*whole.input_ids[:2], chat.eos_id, *answer[:3]]
    assert list(cut.labels) == [IGNORED] * 3 + answer[:3]
    assert (cut.tokens, cut.truncated) == (whole.tokens, True)


def test_a_row_cut_to_any_length_has_as_much_of_prompt_and_answer_as_fits(cache):
    chat = ChatTokenizer.from_folder(cache / T5)
    rows = rows_of([("one two three four", "good bad happy sad")])
    whole = next(encode(rows, chat, 64))
    answer = list(whole.input_ids[-whole.loss_tokens :])
    prompt = list(whole.input_ids[: -whole.loss_tokens])
    for length in range(1, max(len(prompt), len(answer)) + 2):
        cut = next(encode(rows, chat, length))
        kept = prompt if length >= len(prompt) else [*prompt[: length - 1], chat.eos_id]
        assert list(cut.input_ids) == kept + answer[:length], length
        assert cut.loss_tokens == min(len(answer), length)
        assert cut.truncated == (length < max(len(prompt), len(answer)))


@pytest.mark.parametrize("before", ["", "one"])
def test_a_prompt_with_more_special_tokens_at_its_end_than_fit_is_cut_as_any_other(cache, before):
    chat = ChatTokenizer.from_folder(cache / T5)
    (row,) = encode(rows_of([(before + "</s>" * 9, "six")]), chat, 4)
    assert list(row.input_ids[: -row.loss_tokens]) == [chat.eos_id] * 4


def test_characters_that_the_tokenizer_reads_as_others_are_not_lost(cache):
    chat = ChatTokenizer.from_folder(cache / T5)
    lost = chat.lost_characters("ª")
    chat.backend.normalizer = normalizers.NFKC()  # as T5 has it
    assert (chat.lost_characters("ªｒ²ﬁ"), lost) == ([], ["ª"])


@pytest.mark.parametrize(
    ("name", "notes"),
    [
        (
            T5,
            {
                NOTE_LOST_IN_PROMPTS.format("2 characters (天 气)"),
                NOTE_LOST_IN_ANSWERS.format("2 characters (U+000A {)"),
            },
        ),
        (BART, set()),
    ],
)
def test_characters_that_the_model_has_no_tokens_for_are_told(cache, name, notes):
    tally = Tally()
    chat = ChatTokenizer.from_folder(cache / name)
    list(encode(rows_of([("red\n天气? \U0001f642", "{red\nno"), ("one", "e\u0301")]), chat, 64, tally))
    assert tally.notes == notes


def test_a_tokenizer_that_ends_no_text_gets_the_end_of_answers_from_us(cache):
    chat = ChatTokenizer.from_folder(cache / T5)
    chat.backend.post_processor = None
    notes: set[str] = set()
    from finetune_trainer.data.encode import NOTE_EOS, encode_all

    (row,) = encode_all([ROW], chat, 64, notes)
    assert row.labels[-1] == chat.eos_id
    assert notes == {NOTE_EOS}


def test_earlier_turns_stand_in_the_prompt_and_only_the_last_answer_is_learnt(cache):
    chat = ChatTokenizer.from_folder(cache / T5)
    turns = (Turn("user", "one"), Turn("assistant", "two"), Turn("user", "three"), Turn("assistant", "four"))
    (row,) = encode([Row(Position(1), turns)], chat, 64)
    assert [label for label in row.labels if label != IGNORED] == chat.ids(["four"])[0]
    assert list(row.input_ids[: -row.loss_tokens]) == chat.ids(["one\ntwo\nthree"])[0]


@pytest.mark.parametrize("name", [T5, BART, PEGASUS])
def test_trap_07_loss_is_our_own_sum_and_equals_what_the_model_says_of_each_row_alone(cache, name):
    model, store = load(cache, name), store_of(cache, name)
    expected, tokens = 0.0, 0
    with torch.no_grad():
        for number in range(len(store)):
            ids, labels = store.row(number)
            answer = torch.tensor([labels[labels != IGNORED].tolist()])
            said = model(input_ids=torch.tensor([ids[labels == IGNORED].tolist()]), labels=answer)
            expected, tokens = expected + said.loss.item() * answer.numel(), tokens + answer.numel()
        passes = passes_of(store, [0, 1, 2, 3], Cut(None, 4))
        got = sum(loss_sum(model, one).item() for one in passes)
    assert sum(map(labelled, passes)) == tokens
    assert got == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", [T5, BART, PEGASUS])
def test_trap_07_gradients_do_not_depend_on_how_a_step_is_cut(cache, name):
    model, store = load(cache, name), store_of(cache, name)

    def gradients(cut):
        passes = passes_of(store, [0, 1, 2, 3], cut)
        model.zero_grad()
        for one in passes:
            (loss_sum(model, one) / sum(map(labelled, passes))).backward()
        return [value.grad.clone() for value in model.parameters() if value.grad is not None]

    whole = gradients(Cut(None, 4))
    assert len(whole) > 20
    for cut in (Cut(None, 1), Cut(None, 2), Cut(12)):
        for one, other in zip(whole, gradients(cut), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_decoder_inputs_are_the_answer_one_place_later(cache):
    store = store_of(cache, T5)
    batch = padded(store, [2, 0])
    model = load(cache, T5)
    labels = batch["targets"]
    shifted = model.prepare_decoder_input_ids_from_labels(labels)
    assert torch.equal(batch["decoder_input_ids"][labels != IGNORED], shifted[labels != IGNORED])
    assert batch["attention_mask"].sum(1).tolist() == [len(store.row(n)[0]) - len_answer(store, n) for n in (2, 0)]
    assert int(batch["tokens"]) == int(store.lengths[2] + store.lengths[0])


def len_answer(store, number):
    return int((store.row(number)[1] != IGNORED).sum())


def seq2seq_job(folder, cache, name=T5, **spec):
    hyper = {"epochs": 3, "maxSequenceLength": 64, **spec.pop("hyperparameters", {})}
    return make_job(folder, cache, baseModel=name, hyperparameters=hyper, **spec)


def test_check_counts_an_encoder_decoders_tokens(cache, tmp_path):
    job = seq2seq_job(tmp_path, cache, splits=("train",))
    tokenizer, _ = cached_tokenizer(job.spec, cache)
    verdict = check_dataset(job.spec, tokenizer=tokenizer, allow_local=True)
    rows = [json.loads(line) for line in (tmp_path / "train.jsonl").open()]
    texts = [f"{row['system']}\n{row['prompt']}" for row in rows]
    answers = sum(map(len, tokenizer.ids([row["completion"] for row in rows])))
    assert verdict.valid
    assert verdict.train.completion_tokens == answers
    assert verdict.train.tokens == answers + sum(map(len, tokenizer.ids(texts)))
    assert not any("chat template" in warning for warning in verdict.warnings)


@pytest.fixture(scope="module")
def tuned_t5(cache, tmp_path_factory):
    job = seq2seq_job(
        tmp_path_factory.mktemp("t5"),
        cache,
        splits=("train", "validation", "test"),
        hyperparameters={  # enough to learn it whole, whatever kernels round, and no row is cut
            "epochs": 12,
            "batchSize": 4,
            "maxSequenceLength": 128,
        },
        lora={"r": 16, "targetModules": "all-linear"},
        evaluation={"maxNewTokens": 8},
    )
    return job, *do(job)


def test_adapters_on_a_t5_learn_the_task_on_both_sides(tuned_t5):
    job, code, report, phases = tuned_t5
    assert code == ExitCode.OK, report.failure
    assert phases == ["Validating", "Running", "Evaluating", "Succeeded"]
    assert report.loss.train[-1].value < report.loss.train[0].value / 2
    folder = Path(job.output) / "model"
    config = json.loads((folder / "adapter_config.json").read_text())
    assert (config["task_type"], config["base_model_name_or_path"]) == ("SEQ_2_SEQ_LM", T5)
    assert config["target_modules"] == ["k", "o", "q", "v", "wi_0", "wi_1", "wo"]
    weights = load_file(folder / "adapter_model.safetensors")
    second = {name: value for name, value in weights.items() if "lora_B" in name}
    assert len(second) == 2 * (4 + 3) + 2 * (8 + 3)
    assert all(value.abs().max() > 0 for value in second.values())


def test_the_artifact_of_a_t5_says_what_it_is_and_has_no_chat_template(tuned_t5):
    job, _, report, _ = tuned_t5
    folder = Path(job.output) / "model"
    assert report.result.artifact.architecture == "Seq2SeqLM"
    assert not (folder / "chat_template.jinja").exists()
    assert "chat_template" not in json.loads((folder / "tokenizer_config.json").read_text())
    generation = json.loads((folder / "generation_config.json").read_text())
    assert (generation["decoder_start_token_id"], generation["eos_token_id"]) == (0, 1)


def test_evaluation_gives_what_plain_transformers_generates(tuned_t5, cache):
    from peft import PeftModel
    from transformers import AutoTokenizer

    job, _, report, _ = tuned_t5
    folder = Path(job.output) / "model"
    tokenizer, model = AutoTokenizer.from_pretrained(folder), PeftModel.from_pretrained(load(cache, T5), folder).eval()
    answers = [json.loads(line)["answers"]["tuned"]["answer"] for line in (folder / "evaluation.jsonl").open()]
    rows = [json.loads(line) for line in (Path(job.output).parent / "test.jsonl").open()]
    for row, answer in zip(rows, answers, strict=True):
        inputs = tokenizer(f"{row['system']}\n{row['prompt']}", return_tensors="pt")
        output = model.generate(**inputs, max_new_tokens=8, do_sample=False)[0, 1:]
        assert tokenizer.decode(output, skip_special_tokens=True).strip() == answer
    assert report.evaluation.tuned.exact_match > 0.5


def test_a_t5_is_asked_what_training_has_left_of_a_long_question_and_that_is_told(cache, tmp_path, monkeypatch):
    """It names no number of positions: the whole of any text would be read, and nobody has taught it to."""
    asked = []

    def said(_net, prompts, **_how):
        asked.append([list(prompt) for prompt in prompts])
        yield [(place, []) for place in range(len(prompts))]

    monkeypatch.setattr(measuring, "generated", said)
    job = seq2seq_job(
        tmp_path,
        cache,
        splits=("train", "test"),
        hyperparameters={"epochs": 0.4, "maxSequenceLength": 32},
        evaluation={"baselines": [{"zeroShot": {}}, {"fewShot": {"examples": 2}}]},
    )
    long, short = "one two three four five six seven eight nine ten " * 9, "What colour is red?"
    rows = [{"prompt": prompt, "completion": "red"} for prompt in (long, short)]
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, report, _ = do(job)
    assert code == ExitCode.OK, report.failure
    chat = ChatTokenizer.from_folder(cache / T5)
    learnt = list(encode(rows_of([(row["prompt"], row["completion"]) for row in rows]), chat, 32))
    prompts = [list(row.input_ids[: -row.loss_tokens]) for row in learnt]
    assert len(prompts[0]) == 32
    tuned, zero_shot, few_shot = asked
    assert tuned == zero_shot == prompts
    assert all(32 < len(prompt) <= 3 * 32 for prompt in few_shot)
    said = "asked without the end of 1 question longer than 32 tokens: training cuts them so too"
    assert report.evaluation.missing == f"{said} (maxSequenceLength 32)"


@pytest.mark.alike
@pytest.mark.parametrize("name", [T5, BART, PEGASUS])
def test_full_tuning_of_an_encoder_decoder_can_be_stopped_and_goes_on_as_if_it_had_not_been(cache, name, tmp_path):
    from transformers import AutoModelForSeq2SeqLM

    if torch.cuda.is_available() and name == T5:
        pytest.skip("a GPU adds up the gradients of its position biases in any order")

    spec = {"method": "Full", "hyperparameters": {"epochs": 1, "checkpointSteps": 2, "learningRate": 0.003}}
    straight, broken = (seq2seq_job(tmp_path / kind, cache, name, **spec) for kind in ("straight", "broken"))
    assert do(straight)[0] == ExitCode.OK
    with broken_off_after(3):
        assert do(broken)[0] != ExitCode.OK
    assert do(broken)[0] == ExitCode.OK
    same_result(straight, broken, "model.safetensors")
    tuned = AutoModelForSeq2SeqLM.from_pretrained(Path(broken.output) / "model")
    assert tuned.config.is_encoder_decoder


def refused_of_kind(cache, tmp_path, kind):
    """How a job on an encoder-decoder of this kind ends."""
    from transformers import AutoConfig

    folder = tmp_path / "cache" / "test" / "other"
    folder.mkdir(parents=True)
    AutoConfig.for_model(kind, decoder_start_token_id=0).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "model.safetensors"):
        (folder / name).write_bytes((cache / T5 / name).read_bytes())
    code, report, _ = do(seq2seq_job(tmp_path, tmp_path / "cache", "test/other", splits=("train",)))
    assert code == ExitCode.MODEL_UNUSABLE
    return report.failure


def test_an_encoder_decoder_of_another_kind_is_refused_with_those_that_work(cache, tmp_path):
    failure = refused_of_kind(cache, tmp_path, "led")
    assert "of these only bart, blenderbot, longt5, mt5, mvp, pegasus, pegasus_x, t5, umt5" in failure.message
    assert "a T5, BART or Pegasus" in failure.next_step


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("m2m_100", "rows name no languages"),
        ("mbart", "rows name no languages"),
        ("marian", "has a tokenizer for each of its two languages"),
    ],
)
def test_a_translator_is_refused_for_what_its_kind_lacks(cache, tmp_path, kind, why):
    failure = refused_of_kind(cache, tmp_path, kind)
    assert why in failure.message
    assert "translate German to English" in failure.next_step


def test_trap_15_there_is_no_float16_to_tune_with():
    from typing import get_args

    from finetune_api.job import Hyperparameters

    precisions = get_args(Hyperparameters.model_fields["precision"].annotation)
    assert precisions == ("Auto", "BFloat16", "Float32")


def test_an_encoder_decoder_can_be_put_into_a_model_cache(cache, tmp_path):
    from finetune_trainer.__main__ import main

    flags = ["cache", T5, "--model-cache", str(tmp_path), "--from-folder", str(cache / T5)]
    assert main(flags) == ExitCode.OK
    assert ChatTokenizer.from_folder(tmp_path / T5).decoder_start == 0


def test_rows_longer_than_learnt_positions_are_refused_before_training(cache, tmp_path):
    job = seq2seq_job(tmp_path, cache, BART, splits=("train",), hyperparameters={"maxSequenceLength": 200})
    code, report, _ = do(job)
    assert code == ExitCode.SPEC_INVALID
    assert "hyperparameters.maxSequenceLength: 200 is more than the 128 tokens" in report.failure.message
