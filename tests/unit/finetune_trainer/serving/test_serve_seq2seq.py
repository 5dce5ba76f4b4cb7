"""Encoder-decoders behind the same API: in a batch as alone, prompts as plain text, limits for each side."""

import json
import queue
import shutil

import openai
import pytest
import torch
from running_server import running_server
from test_serve_batch import ask, put_back_and_resumed, random_prompts, run

from finetune_api.reasons import Reason
from finetune_trainer.errors import TrainerError
from finetune_trainer.serving.app import ModelHolder
from finetune_trainer.serving.artifact import open_artifact
from finetune_trainer.serving.asks import Ask, Sampling
from finetune_trainer.serving.batch import row_of
from finetune_trainer.serving.engine import Capacity, Engine
from finetune_trainer.serving.load import LoadOptions, choose_dtype, load
from finetune_trainer.serving.seq2seq_batch import Seq2SeqBatch, can_join
from tests.assets.tiny_seq2seq import BART, T5, make_tiny_bart, make_tiny_t5

T5_SHAPE = {"vocab_size": 300, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}
T5_SHAPE |= {"decoder_start_token_id": 0, "dropout_rate": 0.0, "initializer_factor": 2.0}


def make_t5():
    from transformers import T5Config, T5ForConditionalGeneration

    return T5ForConditionalGeneration(T5Config(**T5_SHAPE))


def make_mt5():
    from transformers import MT5Config, MT5ForConditionalGeneration

    return MT5ForConditionalGeneration(MT5Config(**T5_SHAPE))


def make_umt5():
    from transformers import UMT5Config, UMT5ForConditionalGeneration

    return UMT5ForConditionalGeneration(UMT5Config(**T5_SHAPE))


def make_longt5():
    from transformers import LongT5Config, LongT5ForConditionalGeneration

    return LongT5ForConditionalGeneration(LongT5Config(**T5_SHAPE, local_radius=7))


def make_bart():
    from transformers import BartConfig, BartForConditionalGeneration

    config = BartConfig(
        vocab_size=300, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=64, decoder_ffn_dim=64, max_position_embeddings=64, init_std=0.5,
        forced_eos_token_id=None,
    )  # fmt: skip
    return BartForConditionalGeneration(config)


def make_pegasus():
    from transformers import PegasusConfig, PegasusForConditionalGeneration

    config = PegasusConfig(
        vocab_size=300, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=64, decoder_ffn_dim=64, max_position_embeddings=128, init_std=0.3,
    )  # fmt: skip
    return PegasusForConditionalGeneration(config)


def like_bart(kind, **fields):
    """Makes a model of a kind that has BART's layers."""

    def make():
        from transformers import AutoConfig, AutoModelForSeq2SeqLM

        return AutoModelForSeq2SeqLM.from_config(AutoConfig.for_model(kind, **BART_SHAPE, **fields))

    return make


BART_SHAPE = {"vocab_size": 300, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 64}
BART_SHAPE |= {"decoder_ffn_dim": 64, "encoder_attention_heads": 4, "decoder_attention_heads": 4, "init_std": 0.3}
OTHERS = [like_bart("blenderbot"), like_bart("mvp"), like_bart("pegasus_x", num_global_tokens=4, block_size=8)]


def build(make):
    torch.manual_seed(3)
    model = make().eval()
    model.generation_config.eos_token_id = model.generation_config.forced_eos_token_id = None
    model.generation_config.pad_token_id = 0
    return model


def greedy(model, prompt, count):
    made = model.generate(input_ids=torch.tensor([prompt]), do_sample=False, max_new_tokens=count, use_cache=True)
    return made[0, 1:].tolist()


@pytest.mark.parametrize("make", [make_t5, make_mt5, make_umt5, make_longt5])
def test_rows_that_come_and_go_get_the_tokens_of_generate(make):
    model = build(make)
    assert can_join(model)
    prompts, counts = random_prompts(6), [9, 3, 14, 1, 20, 6]
    asks = [ask(prompt, count) for prompt, count in zip(prompts, counts, strict=True)]
    expected = [greedy(model, prompt, count) for prompt, count in zip(prompts, counts, strict=True)]
    assert run(Seq2SeqBatch(model), asks, steps_between=2) == expected
    assert len({tuple(tokens) for tokens in expected}) == len(expected)


@pytest.mark.parametrize("make", [make_bart, make_pegasus, *OTHERS])
def test_positions_that_count_from_the_beginning_answer_one_after_the_other(make):
    model = build(make)
    assert not can_join(model)
    for prompt in random_prompts(3):
        assert run(Seq2SeqBatch(model), [ask(prompt, 8)], steps_between=0) == [greedy(model, prompt, 8)]


@pytest.mark.parametrize("forced", [{"forced_eos_token_id": 2}, {"forced_bos_token_id": 7}])
def test_an_answer_is_the_models_own_but_for_the_end_that_it_puts_at_a_limit(forced):
    """BART's `generate` replaces an answer's last token by its end where the limit is reached: here the token stays."""
    model, prompts = build(make_bart), random_prompts(3)
    free = [greedy(model, prompt, 8) for prompt in prompts]
    model.generation_config.update(**forced)
    own = [greedy(model, prompt, 8) for prompt in prompts]
    assert own != free
    served = [run(Seq2SeqBatch(model), [ask(prompt, 8)], steps_between=0)[0] for prompt in prompts]
    if "forced_bos_token_id" in forced:
        assert served == own
        assert {answer[0] for answer in served} == {7}
    else:
        assert served == free
        assert [answer[:7] for answer in served] == [answer[:7] for answer in own]
        assert {answer[7] for answer in own} == {2}


def test_a_seeded_row_draws_the_same_tokens_in_a_batch_as_alone():
    model, prompts = build(make_t5), random_prompts(4)
    asks = [ask(prompt, 10, Sampling(seed=40 + index)) for index, prompt in enumerate(prompts)]
    together = run(Seq2SeqBatch(model), asks, steps_between=1)
    assert together == [run(Seq2SeqBatch(model), [one], steps_between=0)[0] for one in asks]


def test_a_row_that_leaves_before_it_was_read_leaves_nothing():
    batch = Seq2SeqBatch(build(make_t5))
    batch.start(row_of(ask([1, 2, 3], 3)))
    batch.drop(batch.rows)
    assert (batch.rows, batch.read(), batch.step()) == ([], None, [])


@pytest.mark.parametrize("make", [make_t5, make_bart])
def test_an_answer_that_was_put_back_goes_on_where_it_was(make):
    model = build(make)
    row = row_of(ask([5, 6, 7, 8], 12))
    assert put_back_and_resumed(Seq2SeqBatch(model), row, 12, at=5) == greedy(model, [5, 6, 7, 8], 12)


def test_a_prompt_on_which_the_model_fails_is_told_to_whoever_asked():
    model, heard = build(make_t5), queue.SimpleQueue()
    model.get_encoder().forward = lambda **_: torch.empty(1 << 60)
    limits = Capacity(rows=8, tokens=1000, waiting=4)
    engine = Engine(Seq2SeqBatch(model), decode=str, ends=frozenset(), capacity=limits)
    engine.start()
    engine.submit([Ask((1, 2, 3), 3, tell=heard.put)])
    assert heard.get(timeout=10).failed
    engine.close(timeout=10)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoder-decoders")
    make_tiny_t5(folder)
    make_tiny_bart(folder)
    return folder


@pytest.fixture(scope="module")
def adapter(cache, tmp_path_factory):
    """A strong random adapter on the tiny T5, as training writes one."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    folder = tmp_path_factory.mktemp("tuned") / "t5"
    base = AutoModelForSeq2SeqLM.from_pretrained(cache / T5)
    tuned = get_peft_model(base, LoraConfig(task_type="SEQ_2_SEQ_LM", r=4, target_modules="all-linear"))
    random = torch.Generator().manual_seed(7)
    for name, weight in tuned.named_parameters():
        if "lora_" in name:
            weight.data = torch.randn(weight.shape, generator=random) * 0.3
    tuned.save_pretrained(folder)
    AutoTokenizer.from_pretrained(cache / T5).save_pretrained(folder)
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": T5}))
    return folder


@pytest.fixture(scope="module")
def served(cache, adapter):
    loaded = load(open_artifact(adapter, cache), LoadOptions(name="t5", max_model_length=48))
    yield loaded
    loaded.engine.close(timeout=10)


@pytest.fixture(scope="module")
def client(served):
    with (
        running_server(ModelHolder(served)) as address,
        openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0, timeout=30) as client,
    ):
        yield client


def plain(cache, adapter, text, count):
    """What peft and transformers answer without us."""
    from peft import PeftModel
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    model = PeftModel.from_pretrained(AutoModelForSeq2SeqLM.from_pretrained(cache / T5), adapter).eval()
    tokenizer = AutoTokenizer.from_pretrained(adapter)
    output = model.generate(**tokenizer(text, return_tensors="pt"), max_new_tokens=count, do_sample=False)
    return tokenizer.decode(output[0, 1:], skip_special_tokens=True)


def test_a_chat_puts_the_system_message_before_the_prompt(client, cache, adapter):
    messages = [{"role": "system", "content": "Answer with one word."}, {"role": "user", "content": "What colour?"}]
    answer = client.chat.completions.create(model="t5", messages=messages, temperature=0, max_tokens=12)
    assert answer.choices[0].message.content == plain(cache, adapter, "Answer with one word.\nWhat colour?", 12)
    assert answer.usage.completion_tokens == 12 or answer.choices[0].finish_reason == "stop"
    pieces = client.chat.completions.create(model="t5", messages=messages, temperature=0, max_tokens=12, stream=True)
    streamed = "".join(piece.choices[0].delta.content or "" for piece in pieces)
    assert streamed == answer.choices[0].message.content


def test_a_completion_is_a_text_of_its_own(client, cache, adapter):
    prompts = ["one two three", "good"]
    answer = client.completions.create(model="t5", prompt=prompts, temperature=0, max_tokens=9)
    assert [choice.text for choice in answer.choices] == [plain(cache, adapter, prompt, 9) for prompt in prompts]


def test_prompt_and_answer_have_a_context_each(client):
    prompt = [5] * 48
    answer = client.completions.create(model="t5", prompt=prompt, temperature=0, max_tokens=40)
    assert answer.usage.prompt_tokens == 48
    assert answer.usage.completion_tokens == 40 or answer.choices[0].finish_reason == "stop"
    with pytest.raises(openai.BadRequestError, match="has 49 tokens; it may have 48"):
        client.completions.create(model="t5", prompt=[5] * 49, max_tokens=1)


def test_a_whole_bart_is_served(cache):
    served = load(open_artifact(cache / BART, None), LoadOptions(name="bart"))
    try:
        assert (served.context, served.encoder_decoder, served.engine._capacity.rows) == (128, True, 1)
    finally:
        served.engine.close(timeout=10)


def test_an_encoder_decoder_of_another_kind_is_refused(cache, tmp_path):
    folder = shutil.copytree(cache / T5, tmp_path / "other")
    (folder / "manifest.json").unlink()
    config = {"model_type": "m2m_100", "is_encoder_decoder": True, "decoder_start_token_id": 0}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(TrainerError, match=r"encoder-decoder .m2m_100. of a kind that is not served") as caught:
        load(open_artifact(folder, None), LoadOptions(name="x"))
    assert "t5" in caught.value.next_step


def test_trap_15_an_encoder_decoder_never_computes_in_float16(tmp_path):
    config = type("Config", (), {"dtype": torch.float16, "is_encoder_decoder": True})
    with pytest.raises(TrainerError, match="float16") as caught:
        choose_dtype("float16", config, tmp_path, "cuda")
    assert caught.value.reason == Reason.SPEC_INVALID
    assert choose_dtype("auto", config, tmp_path, "cuda") == torch.bfloat16
