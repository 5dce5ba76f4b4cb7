"""Merged artifacts, and the card that every artifact has."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from finetune_api.exit_codes import ExitCode
from finetune_api.job import LoRA
from finetune_api.job_status import LITTLE_KEPT
from finetune_trainer.data import IGNORED
from finetune_trainer.errors import TrainerError
from finetune_trainer.models import base_model
from finetune_trainer.models.adapters import with_adapters
from finetune_trainer.output import artifact, merge, model_card
from finetune_trainer.storage import durable
from finetune_trainer.training.passes import padded
from finetune_trainer.training.step_trainer import StepTrainer
from finetune_trainer.training.token_store import TokenStore
from tests.assets.tiny_model import NAME, make_tiny_model
from tests.assets.tiny_seq2seq import T5, make_tiny_t5
from tests.unit.finetune_trainer.jobs import make_job
from tests.unit.finetune_trainer.training_runs import do

MERGE = {"merge": True}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Models as hubs have them: in bfloat16."""
    folder = tmp_path_factory.mktemp("16-bit")
    for made in (make_tiny_model(folder, width=64), make_tiny_t5(folder, width=64)):
        weights = {name: value.bfloat16() for name, value in load_file(made / "model.safetensors").items()}
        save_file(weights, made / "model.safetensors", {"format": "pt"})
        config = json.loads((made / "config.json").read_text())
        (made / "config.json").write_text(json.dumps(config | {"dtype": "bfloat16"}))
    return folder


@pytest.mark.parametrize(
    ("name", "spec"),
    [
        (NAME, {"method": "LoRA", "lora": {"useDoRA": True}}),
        (NAME, {"method": "QLoRA", "lora": {"useRSLoRA": True}}),
        (T5, {"method": "LoRA"}),
    ],
)
def test_trap_14_an_adapter_is_merged_into_the_16_bit_base(cache, tmp_path, monkeypatch, name, spec):
    seen = {}
    original = merge._require_same

    def compare(expected, got):
        seen.update(expected=expected, got=got)
        original(expected, got)

    monkeypatch.setattr(merge, "_require_same", compare)
    hyper = {"epochs": 2, "maxSequenceLength": 64}
    job = make_job(tmp_path, cache, splits=("train",), baseModel=name, artifact=MERGE, hyperparameters=hyper, **spec)
    code, report, _ = do(job)
    assert code == ExitCode.OK, report.failure
    assert (report.result.artifact.kind, report.result.artifact.lora_rank) == ("Full", None)
    folder = Path(job.output) / "model"
    weights, base = load_file(folder / "model.safetensors"), load_file(cache / name / "model.safetensors")
    assert {value.dtype for value in weights.values()} == {torch.bfloat16}
    assert weights.keys() == base.keys()
    changed = [key for key in weights if not torch.equal(weights[key], base[key])]
    assert len(changed) >= 14
    assert not any("embed" in key or "shared" in key or "lm_head" in key for key in changed)
    assert json.loads((folder / "manifest.json").read_text())["merged"] is True
    spread = seen["expected"].std()
    assert (seen["got"] - seen["expected"]).square().mean().sqrt() < 0.03 * spread
    assert not list(folder.glob("adapter*"))


@pytest.mark.parametrize("adapted", [False, True], ids=["whole", "adapter"])
def test_no_artifact_has_numbers_of_64_bits(cache, tmp_path, adapted):
    model = base_model.load_model(cache / NAME, dtype=torch.float64)
    model = with_adapters(model, LoRA(), NAME).double() if adapted else model
    artifact.save_weights(tmp_path, model)
    (file,) = tmp_path.glob("*.safetensors")
    assert {value.dtype for value in load_file(file).values()} == {torch.float32}
    assert adapted or json.loads((tmp_path / "config.json").read_text())["dtype"] == "float32"


def test_a_merge_is_checked_where_loss_is_and_nowhere_else(cache):
    """All of a long row's logits would take more memory than any pass of the training did."""
    model = base_model.load_model(cache / NAME, dtype=torch.float32)
    heads = []
    model.lm_head.register_forward_hook(lambda _head, given, _logits: heads.append(given[0].shape[1]))
    store = TokenStore([(range(3, 43), [IGNORED] * 38 + [41, 42])])
    assert merge._logits(model, padded(store, [0])).shape == (2, model.config.vocab_size)
    assert heads == [2]


def test_a_merge_that_would_lose_the_adapter_is_refused(cache, tmp_path, monkeypatch):
    monkeypatch.setattr(merge, "TOLERANCE", 1e-9)
    job = make_job(tmp_path, cache, splits=("train",), artifact=MERGE, hyperparameters={"epochs": 0.4})
    code, report, _ = do(job)
    assert (code, report.failure.reason) == (ExitCode.ARTIFACT_FAILED, "ArtifactFailed")
    assert "artifact.merge: the adapter cannot be merged: its logits differ" in report.failure.message
    assert "without artifact.merge" in report.failure.next_step


@pytest.mark.alike
@pytest.mark.parametrize(("rate", "precision"), [(1e-6, "BFloat16"), (1e-6, "Float32"), (1e-3, "BFloat16")])
def test_full_tuning_that_is_lost_when_it_is_saved_in_16_bits_is_told(cache, tmp_path, rate, precision):
    hyper = {"epochs": 0.4, "learningRate": rate, "precision": precision}
    job = make_job(tmp_path, cache, splits=("train",), method="Full", hyperparameters=hyper)
    code, report, _ = do(job)
    assert code == ExitCode.OK, report.failure
    lost = (rate, precision) == (1e-6, "BFloat16")
    assert [said[: len(LITTLE_KEPT)] for said in report.result.warnings or ()] == [LITTLE_KEPT] * lost
    told = json.loads((Path(job.output) / "model" / "result.json").read_text())["training"].get("warnings")
    assert told == report.result.warnings


@pytest.mark.parametrize(("rate", "told"), [(1e-7, [LITTLE_KEPT]), (1e-2, [])])
def test_an_adapter_that_is_lost_when_it_is_added_to_16_bits_is_told(cache, tmp_path, rate, told):
    hyper = {"epochs": 0.4, "learningRate": rate}
    job = make_job(tmp_path, cache, splits=("train",), artifact=MERGE, hyperparameters=hyper)
    code, report, _ = do(job)
    assert code == ExitCode.OK, report.failure
    assert [said[: len(LITTLE_KEPT)] for said in report.result.warnings or ()] == told


def test_an_adapter_that_overflows_its_base_is_refused_in_words(cache):
    apart = with_adapters(base_model.load_model(cache / NAME, dtype=torch.float16), LoRA(), NAME)
    for name, value in apart.named_parameters():
        if "lora_B" in name:
            value.data.fill_(1e5)
    with pytest.raises(TrainerError, match="cannot be merged: added to the base model's it makes weights that are no"):
        merge._added(apart)


def test_an_adapter_of_own_code_that_peft_merges_nowhere_is_refused_in_its_words(cache):
    from peft import LoraConfig, get_peft_model

    biased = LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"], lora_bias=True)
    apart = get_peft_model(base_model.load_model(cache / NAME, dtype=torch.float32), biased)
    with pytest.raises(
        TrainerError, match="cannot be merged: peft says: Impossible to merge LoRA with `lora_bias=True`"
    ):
        merge._added(apart)


def test_weights_that_are_no_numbers_are_never_written(tiny_model, tmp_path, monkeypatch):
    """On a CPU attention may keep them out of every loss."""

    def spoil(trainer):
        next(value for value in trainer.model.parameters() if value.requires_grad).data[0] = torch.nan
        return 1.0

    monkeypatch.setattr(StepTrainer, "_measured_at_end", spoil)
    job = make_job(tmp_path, tiny_model, splits=("train",), hyperparameters={"epochs": 0.4})
    code, report, _ = do(job)
    assert (code, report.failure.reason) == (ExitCode.TRAINING_DIVERGED, "TrainingDiverged")
    assert "lora_A.default.weight holds numbers that are not finite" in report.failure.message
    assert not (Path(job.output) / "model").exists()


def test_a_tuned_model_that_cannot_be_read_at_the_moment_is_not_trained_anew(tmp_path, monkeypatch):
    job = make_job(tmp_path, tmp_path / "cache", splits=("train",))
    with durable.whole_folder(artifact.folder_of(job)) as draft:
        (draft / "adapter_model.safetensors").write_bytes(b"x")

    def stale(_path):
        raise OSError(116, "Stale file handle")

    monkeypatch.setattr(durable, "sha256_of", stale)
    with pytest.raises(TrainerError, match="holds a tuned model that cannot be read: Stale file handle"):
        artifact.finished(job)


def test_the_card_says_what_on_which_data_how_and_how_well(cache, tmp_path):
    job = make_job(
        tmp_path, cache, splits=("train", "validation", "test"), lora={"r": 4}, hyperparameters={"epochs": 0.4},
        evaluation={"maxNewTokens": 2},
    )  # fmt: skip
    code, report, _ = do(job)
    assert code == ExitCode.OK, report.failure
    card = (Path(job.output) / "model" / "README.md").read_text()
    head, body = card.removeprefix("---\n").split("---\n", 1)
    assert 'base_model: "test/tiny-llama"' in head
    assert 'library_name: "peft"' in head
    assert 'pipeline_tag: "text-generation"' in head
    assert f"| train | 40 | {report.dataset.train.tokens} | {report.dataset.train.sha256} |" in body
    assert "| r | 4 |" in body
    assert f"| validation loss, nats per completion token | {report.result.eval_loss:.4g} |" in body
    assert "| measure | tuned | zeroShot |" in body
    assert "vllm serve test/tiny-llama --enable-lora --max-lora-rank 4 --lora-modules colours=FOLDER --tok" in body
    rows = [json.loads(line) for line in (tmp_path / "train.jsonl").open()]
    assert not any(row["prompt"] in card for row in rows)


def test_an_endpoint_of_whatever_name_takes_nobodys_column_in_the_card():
    service = {"name": "tuned", "rows": 2, "exactMatch": 0.5}
    found = {"rows": 2, "tuned": {"exactMatch": 1.0}, "baselines": {"endpoints": [service]}}
    assert "| measure | tuned | endpoint tuned |\n| --- | --- | --- |\n| exactMatch | 1 | 0.5 |" in (
        model_card._evaluation(found)
    )


def test_the_card_of_an_encoder_decoder_has_no_command_of_vllm(cache, tmp_path):
    hyper = {"epochs": 0.4, "maxSequenceLength": 64}
    job = make_job(tmp_path, cache, splits=("train",), baseModel=T5, hyperparameters=hyper)
    assert do(job)[0] == ExitCode.OK
    card = (Path(job.output) / "model" / "README.md").read_text()
    assert 'pipeline_tag: "text2text-generation"' in card
    assert "vllm" not in card


def test_the_folder_of_an_adapter_on_an_encoder_decoder_knows_where_answers_begin(cache, tmp_path):
    from finetune_trainer.data import ChatTokenizer

    hyper = {"epochs": 0.4, "maxSequenceLength": 64}
    job = make_job(tmp_path, cache, splits=("train",), baseModel=T5, hyperparameters=hyper)
    assert do(job)[0] == ExitCode.OK
    assert ChatTokenizer.from_folder(Path(job.output) / "model").decoder_start == 0
