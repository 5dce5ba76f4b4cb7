"""What only a GPU takes: its attention and compiled layers, and whole lives of jobs in the precision that is chosen
there."""

import json
from pathlib import Path

import httpx
import pytest
import torch
from safetensors.torch import load_file

from bench.memory import gpu as memory_bench
from finetune_api.exit_codes import ExitCode
from finetune_trainer.computing.adapted_linear import fuse
from finetune_trainer.computing.attention import attention, boundaries, why_not_packed
from finetune_trainer.computing.compiled_layers import in_training, why_not_compiled
from finetune_trainer.evaluation.generate import generated
from finetune_trainer.models import base_model
from finetune_trainer.serving.app import ModelHolder
from finetune_trainer.serving.artifact import open_artifact
from finetune_trainer.serving.load import LoadOptions, load
from finetune_trainer.training import tuning
from finetune_trainer.training.passes import Cut, loss_sum, on_device, passes_of
from finetune_trainer.training.token_store import TokenStore
from tests.assets.tiny_model import NAME, make_tiny_model, make_tiny_tokenizer
from tests.assets.tiny_seq2seq import T5, make_tiny_t5
from tests.unit.finetune_trainer.attempt.stop_requests import terminate
from tests.unit.finetune_trainer.computing.small_models import MODELS, adapted, make_model, make_rows
from tests.unit.finetune_trainer.jobs import make_job, make_preference_job
from tests.unit.finetune_trainer.serving.running_server import running_server
from tests.unit.finetune_trainer.training.own_jobs import EXAMPLES, job_with
from tests.unit.finetune_trainer.training_runs import do

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]

AUTO = {"precision": "Auto"}
ALL = ("train", "validation", "test")
SHORT = {"maxNewTokens": 4}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Models as hubs have them, in bfloat16, whose heads and layers suit every kernel."""
    folder = tmp_path_factory.mktemp("gpu")
    for made in (make_tiny_model(folder, width=64), make_tiny_t5(folder, width=64)):
        model = base_model.load_model(made, dtype=torch.bfloat16)
        model.save_pretrained(made)
    return folder


def steps_of(job):
    lines = map(json.loads, (Path(job.output) / "metrics.jsonl").open())
    return [line for line in lines if "loss" in line]


@pytest.mark.parametrize("lengths", [[70, 3, 129, 1], [64, 64]], ids=["ragged", "one length"])
@pytest.mark.parametrize(("heads", "kept", "width"), [(4, 4, 64), (4, 2, 128), (6, 1, 12)])
@pytest.mark.parametrize("window", [None, 16])
def test_attention_and_its_gradients_are_those_of_each_document_alone(lengths, heads, kept, width, window):
    chance = torch.Generator("cuda").manual_seed(0)
    given = [
        torch.randn(1, count, sum(lengths), width, device="cuda", dtype=torch.bfloat16, generator=chance)
        for count in (heads, kept, kept, heads)
    ]
    given, sent = [one.requires_grad_() for one in given[:3]], given[3].transpose(1, 2)
    told = boundaries(lengths, "cuda") | {"sliding_window": window}
    out, _ = attention(torch.nn.Module(), *given, None, **told)
    got = [out, *torch.autograd.grad(out, given, sent)]

    exact = [one.detach().double().requires_grad_() for one in given]
    parts = zip(*(one.split(lengths, dim=2) for one in exact), strict=True)
    alone = torch.cat([_exactly(*part, window) for part in parts], dim=2).transpose(1, 2)
    expected = [alone, *torch.autograd.grad(alone, exact, sent.double())]
    for one, other in zip(got, expected, strict=True):
        assert (one.double() - other).norm() < 1e-2 * other.norm()


def _exactly(query, key, value, window):
    """Attention of one document in 64 bits, by its definition."""
    groups, tokens = query.shape[1] // key.shape[1], query.shape[2]
    back = torch.arange(tokens, device="cuda")[:, None] - torch.arange(tokens, device="cuda")[None]
    seen = (back >= 0) & (back < (window or tokens))
    scores = query @ key.repeat_interleave(groups, 1).mT / query.shape[-1] ** 0.5
    return scores.masked_fill(~seen, -torch.inf).softmax(-1) @ value.repeat_interleave(groups, 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fully tuned", "frozen base"])
def test_rows_are_packed_whatever_the_weights_are_kept_in(dtype):
    model = make_model("llama", num_key_value_heads=2).to("cuda", dtype)
    assert why_not_packed(model, torch.bfloat16) is None


def test_compiled_layers_round_no_worse_than_layers_as_they_are():
    assert why_not_compiled() is None

    def learnt(dtype, *, compile_layers, packed):
        model = adapted(make_model("llama", hidden_size=64, num_key_value_heads=2).to("cuda", dtype))
        fuse(model)
        trained = [value for value in model.parameters() if value.requires_grad]
        with in_training(model, trained, packed=packed, compile_layers=compile_layers):
            for rows in ([0, 1, 2], [2, 3, 4, 5]):  # of another number of tokens
                (batch,) = passes_of(TokenStore(make_rows()), rows, Cut(None, 4, packed=packed))
                batch = on_device(batch, "cuda")
                with torch.autocast("cuda", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
                    loss_sum(model, batch).backward()
        return [value.grad for value in trained]

    exact = learnt(torch.float32, compile_layers=False, packed=False)
    errors = {}
    for compile_layers in (False, True):
        got = learnt(torch.bfloat16, compile_layers=compile_layers, packed=True)
        errors[compile_layers] = sum(
            float((one - other).norm() / other.norm()) for one, other in zip(got, exact, strict=True)
        )
    assert errors[True] < 1.2 * errors[False]


WAYS = {
    "LoRA": {},
    "dropout": {"lora": {"dropout": 0.05}},
    "QLoRA": {"method": "QLoRA"},
    "Full": {"method": "Full"},
    "preference": {"preference": {}},
}


@pytest.mark.parametrize("way", WAYS)
def test_a_job_whose_layers_are_compiled_ends_with_a_model_that_answers(cache, tmp_path, monkeypatch, way):
    make = make_preference_job if way == "preference" else make_job
    rate = {"learningRate": 0.002} if way == "Full" else {}
    about = {"hyperparameters": AUTO | rate, **WAYS[way]}
    plain = make(tmp_path / "plain", cache, splits=("train",), **about)
    assert do(plain)[0] == ExitCode.OK
    monkeypatch.setattr(tuning, "_WORTH_COMPILING", 0)
    job = make(tmp_path / "compiled", cache, splits=ALL, evaluation=SHORT, **about)
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
        code, report, _ = do(job)
    torch._dynamo.reset()
    assert code == ExitCode.OK, report.failure
    assert report.evaluation.rows == 12
    losses = [[step["loss"] for step in steps_of(one)] for one in (job, plain)]
    assert losses[0] == pytest.approx(losses[1], rel=0.05 if way != "dropout" else 0.3, abs=0.02)


SHAPES = ([60, 30, 90, 20], [300], [64, 64], [70, 1], [128], [128] * 3, [40, 3, 9, 100])
"""Rows of a pass: of many lengths, one alone, several of one length."""


@pytest.mark.parametrize("kind", ["llama", "qwen3", "mistral with a window", "gemma3", "phi3", "learned positions"])
def test_layers_stay_compiled_whatever_rows_a_pass_is_made_of(kind):
    """Past torch's limit of recompilations layers would run as they are, without a word to who waits for the job."""
    name, changes = MODELS[kind]
    model = adapted(make_model(name, **changes).to("cuda", torch.bfloat16))
    fuse(model)
    trained = [value for value in model.parameters() if value.requires_grad]
    with (
        torch._dynamo.config.patch(fail_on_recompile_limit_hit=True),
        in_training(model, trained, packed=True, compile_layers=True),
        torch.autocast("cuda", dtype=torch.bfloat16),
    ):
        for training in (True, False):
            model.train(training)
            for lengths in SHAPES:
                store = TokenStore([([1 + place % 60 for place in range(length)], [7] * length) for length in lengths])
                (batch,) = passes_of(store, list(range(len(lengths))), Cut(1000, packed=True))
                with torch.set_grad_enabled(training):
                    loss = loss_sum(model, on_device(batch, "cuda"))
                if training:
                    loss.backward()


@pytest.mark.parametrize("method", ["LoRA", "QLoRA", "Full"])
def test_a_job_is_packed_learns_is_measured_and_fits_its_estimate(cache, tmp_path, method, caplog):
    caplog.set_level("INFO", "finetune_trainer.train")
    rate = {"learningRate": 0.002} if method == "Full" else {}
    job = make_job(
        tmp_path,
        cache,
        splits=ALL,
        method=method,
        hyperparameters=AUTO | rate,
        evaluation=SHORT | {"metrics": ["chrF"]},
    )
    code, report, _ = do(job)
    assert code == ExitCode.OK, report.failure
    assert "rows are packed" in caplog.text
    assert report.loss.train[-1].value < 0.7 * report.loss.train[0].value
    assert report.evaluation.rows == 12
    assert report.memory.device == "GPU"
    assert report.memory.fits is True


@pytest.mark.parametrize("method", ["LoRA", "QLoRA"])
@pytest.mark.parametrize("kind", MODELS)
def test_models_of_all_kinds_learn_and_answer(kind, method, tmp_path):
    name, changes = MODELS[kind]
    tokenizer = make_tiny_tokenizer()
    tokens = {"vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id, "bos_token_id": None}
    folder = tmp_path / "test/any"
    make_model(name, **changes | tokens | {"pad_token_id": 0}).to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "manifest.json").write_text(json.dumps({"model": "test/any"}))
    about = {"baseModel": "test/any", "method": method, "hyperparameters": AUTO}
    job = make_job(tmp_path / "job", tmp_path, splits=("train",), **about)
    code, report, _ = do(job)
    assert code == ExitCode.OK, report.failure
    assert report.loss.train[-1].value < 0.9 * report.loss.train[0].value
    assert isinstance(answered(Path(job.output) / "model", tmp_path), str)


def test_a_4_bit_job_is_merged_into_16_bits_and_served(cache, tmp_path):
    job = make_job(tmp_path, cache, splits=("train",), method="QLoRA", artifact={"merge": True}, hyperparameters=AUTO)
    code, report, _ = do(job)
    assert code == ExitCode.OK, report.failure
    folder = Path(job.output) / "model"
    assert {value.dtype for value in load_file(folder / "model.safetensors").values()} == {torch.bfloat16}
    assert answered(folder, cache)


def answered(folder, cache):
    """What a server on this GPU says to a question of the training set's kind, over HTTP."""
    asked = [
        {"role": "system", "content": "Answer with one word."},
        {"role": "user", "content": "What colour is number 7 very red?"},
    ]
    served = load(open_artifact(folder, cache), LoadOptions(name="colours"))
    assert served.engine._batch._model.device.type == "cuda"
    try:
        with running_server(ModelHolder(served)) as address:
            about = {"model": "colours", "messages": asked, "temperature": 0, "max_tokens": 8}
            said = httpx.post(f"{address}/v1/chat/completions", json=about, timeout=60)
    finally:
        served.engine.close(timeout=10)
    return said.json()["choices"][0]["message"]["content"]


@pytest.mark.parametrize("name", [NAME, T5])
def test_answers_do_not_depend_on_how_questions_are_batched(cache, name):
    model = base_model.load_model(cache / name, dtype=torch.float32).to("cuda")
    chance = torch.Generator().manual_seed(4)
    prompts = [torch.randint(3, 60, (length,), generator=chance).tolist() for length in (3, 40, 11, 17, 5, 29)]
    model.generation_config.pad_token_id = 0

    def said(budget):
        batches = generated(model, prompts, generation=model.generation_config, max_new_tokens=8, token_budget=budget)
        return [answer for _, answer in sorted(pair for batch in batches for pair in batch)]

    assert said(10_000) == said(1)


def test_preferences_are_learnt(cache, tmp_path):
    job = make_preference_job(tmp_path, cache, splits=ALL, hyperparameters=AUTO, evaluation=SHORT)
    code, report, _ = do(job)
    assert code == ExitCode.OK, report.failure
    assert report.loss.train[0].value == pytest.approx(0.6931, abs=0.05)
    assert report.loss.validation[-1].reward_accuracy > 0.9


@pytest.mark.parametrize("method", ["LoRA", "Full"])
def test_an_encoder_decoder_is_tuned_in_16_bits_measured_and_served(cache, tmp_path, method):
    hyper = AUTO | {"epochs": 6, "maxSequenceLength": 128, "learningRate": 0.003}
    job = make_job(tmp_path, cache, splits=ALL, baseModel=T5, method=method, hyperparameters=hyper, evaluation=SHORT)
    code, report, _ = do(job)
    assert code == ExitCode.OK, report.failure
    assert report.loss.train[-1].value < report.loss.train[0].value
    assert report.evaluation.rows == 12
    assert isinstance(answered(Path(job.output) / "model", cache), str)


@pytest.mark.parametrize(("precision", "tolerance"), [("Float32", 1e-5), ("Auto", 2e-2)])
def test_an_interrupted_job_goes_on_with_the_same_steps(cache, tmp_path, monkeypatch, precision, tolerance):
    about = {"splits": ("train",), "lora": {"dropout": 0.1}, "hyperparameters": {"precision": precision}}
    straight, broken = (make_job(tmp_path / name, cache, **about) for name in ("straight", "broken"))
    assert do(straight)[0] == ExitCode.OK
    with monkeypatch.context() as patched:
        stop_after(patched, 7)
        assert do(broken)[0] == ExitCode.INTERRUPTED
    assert len(steps_of(broken)) == 7
    assert do(broken.model_copy(update={"attempt": 2}))[0] == ExitCode.OK
    losses = [[step["loss"] for step in steps_of(job)] for job in (straight, broken)]
    assert losses[1] == pytest.approx(losses[0], rel=tolerance)


def stop_after(patched, step):
    from finetune_trainer.attempt.metrics import Metrics

    add = Metrics.add

    def add_and_stop(record, **line):
        add(record, **line)
        if line["step"] == step:
            terminate()

    patched.setattr(Metrics, "add", add_and_stop)


@pytest.mark.parametrize("example", ["snippets.py", "own_loop.py", "plain_trainer.py"])
def test_own_code_runs_on_the_gpu(cache, tmp_path, example, monkeypatch):
    root = EXAMPLES.parents[1]
    monkeypatch.setenv("PYTHONPATH", f"{root / 'operator'}:{root / 'trainer_image'}", prepend=":")
    method = "Full" if example == "plain_trainer.py" else "LoRA"
    job = job_with(
        EXAMPLES / example, tmp_path, cache, splits=ALL, method=method, hyperparameters=AUTO, evaluation=SHORT
    )
    code, report, _ = do(job)
    assert code == ExitCode.OK, report.failure
    assert report.evaluation.rows == 12
    assert report.loss.train[-1].value < report.loss.train[0].value


@pytest.mark.parametrize(
    ("method", "checkpointing"), [("LoRA", False), ("LoRA", True), ("QLoRA", False), ("Full", False)]
)
def test_estimates_of_memory_lie_near_the_peak(method, checkpointing, tmp_path):
    """The decision on memory says from -1 to +6 % for published shapes."""
    case = ("Qwen2.5-0.5B", method, 1024)
    peak = memory_bench._case(tmp_path, *case, checkpointing=checkpointing)["peak"]
    assert memory_bench.estimate(*case, checkpointing=checkpointing) == pytest.approx(peak, rel=0.06)
