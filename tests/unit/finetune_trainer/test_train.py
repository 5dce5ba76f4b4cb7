"""Whole runs with a tiny model: what they leave behind, what they say, and how they end."""

import itertools
import json
import shutil
import signal
from pathlib import Path

import pytest
from safetensors.torch import load_file

from finetune_api.exit_codes import ExitCode
from finetune_api.job import FineTuneJobSpec
from finetune_trainer.attempt import outcome
from finetune_trainer.attempt.interruption import Interruption
from finetune_trainer.attempt.report import Reporter
from finetune_trainer.evaluation.kept import KeptAnswers
from finetune_trainer.output.finished import fingerprint
from finetune_trainer.storage.durable import read_manifest, whole_folder
from finetune_trainer.train import execute
from finetune_trainer.training import objective, step_trainer
from finetune_trainer.training.objective import by_loss
from finetune_trainer.training.passes import loss_sum
from tests.unit.finetune_trainer.jobs import make_job
from tests.unit.finetune_trainer.shortages import ERRORS
from tests.unit.finetune_trainer.training_runs import do, same_result


@pytest.fixture(scope="module")
def lora(tiny_model, tmp_path_factory):
    job = make_job(tmp_path_factory.mktemp("lora"), tiny_model, splits=("train", "validation", "test"))
    return job, *do(job)


@pytest.fixture(scope="module")
def full(tiny_model, tmp_path_factory):
    job = make_job(
        tmp_path_factory.mktemp("full"),
        tiny_model,
        splits=("train", "test"),
        method="Full",
        hyperparameters={"epochs": 12},
        evaluation={"maxNewTokens": 8},
    )
    return job, *do(job)


def test_a_run_reports_phases_progress_losses_verdict_and_result(lora):
    _, code, report, phases = lora
    assert code == ExitCode.OK
    assert phases == ["Validating", "Running", "Evaluating", "Succeeded"]
    assert (report.progress.step, report.progress.total_steps, report.progress.percent) == (15, 15, 100)
    assert report.progress.tokens_per_second > 0
    assert len(report.loss.train) == 15
    assert report.loss.validation[-1].step == 15
    assert report.loss.train[-1].value < report.loss.train[0].value
    assert report.dataset.valid
    assert report.dataset.train.rows == 40
    assert report.evaluation.rows == 12
    assert report.result.steps == 15
    assert report.result.dataset_sha256 == report.dataset.train.sha256
    assert report.result.eval_loss == report.loss.last_validation


def test_an_adapter_artifact_names_its_base_model_and_holds_all_that_serving_needs(lora):
    job, _, report, _ = lora
    folder = Path(job.output) / "model"
    manifest = read_manifest(folder)
    assert set(manifest["files"]) == {
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "chat_template.jinja",
        "dataset.json",
        "evaluation.jsonl",
        "generation_config.json",
        "loss.svg",
        "metrics.jsonl",
        "report.html",
        "result.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert (manifest["baseModel"], manifest["method"]) == ("test/tiny-llama", "LoRA")
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "test/tiny-llama"
    assert config["target_modules"] == ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]
    assert json.loads((folder / "generation_config.json").read_text())["eos_token_id"] == 2
    assert report.result.artifact.kind == "Adapter"
    assert report.result.artifact.bytes == sum(path.stat().st_size for path in folder.iterdir())
    assert all(path.stat().st_mode & 0o444 == 0o444 for path in folder.iterdir())


def test_nothing_of_this_machine_gets_into_the_artifact(lora):
    job, *_ = lora
    for path in (Path(job.output) / "model").iterdir():
        assert job.output.encode() not in path.read_bytes()
        assert job.model_cache.encode() not in path.read_bytes()


def test_adapters_learn(lora):
    job, *_ = lora
    weights = load_file(Path(job.output) / "model" / "adapter_model.safetensors")
    second = {name: value for name, value in weights.items() if "lora_B" in name}
    assert len(second) == 14
    assert all(value.abs().max() > 0 for value in second.values())


def test_checkpoints_are_gone_after_success(lora):
    job, *_ = lora
    assert sorted(path.name for path in Path(job.output).iterdir()) == [
        "attempt",
        "attempt-holder",
        "metrics.jsonl",
        "model",
    ]


def test_a_finished_job_reports_the_same_result_and_trains_nothing(lora, monkeypatch):
    job, _, report, _ = lora
    monkeypatch.setattr(step_trainer.StepTrainer, "run", lambda _self, **_: pytest.fail("it trained again"))
    code, again, phases = do(job)
    assert (code, phases) == (ExitCode.OK, ["Validating", "Succeeded"])
    assert (again.result, again.evaluation, again.dataset) == (report.result, report.evaluation, report.dataset)
    assert again.loss == report.loss


def test_full_tuning_learns_the_task_and_beats_the_base_model(full):
    job, code, report, _ = full
    assert code == ExitCode.OK
    assert report.result.artifact.kind == "Full"
    assert report.evaluation.tuned.exact_match > 0.8
    assert report.evaluation.baselines.zero_shot.exact_match < 0.2
    assert report.evaluation.verdict == "Better"
    answers = [json.loads(line) for line in (Path(job.output) / "model" / "evaluation.jsonl").open()]
    assert sum(answer["answers"]["tuned"]["exactMatch"] for answer in answers) / 12 == pytest.approx(
        report.evaluation.tuned.exact_match, abs=1e-6
    )
    assert report.evaluation.tuned.perplexity < report.evaluation.baselines.zero_shot.perplexity
    assert report.loss.validation == []


def test_a_fully_tuned_model_loads_as_any_other_and_answers_alone_what_it_answered_in_batches(full):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    job, *_ = full
    folder = Path(job.output) / "model"
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    answers = [json.loads(line)["answers"]["tuned"]["answer"] for line in (folder / "evaluation.jsonl").open()]
    rows = [json.loads(line) for line in (Path(job.output).parent / "test.jsonl").open()]
    for row, answer in zip(rows, answers, strict=True):
        messages = [{"role": "system", "content": row["system"]}, {"role": "user", "content": row["prompt"]}]
        inputs = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        output = model.generate(**inputs, max_new_tokens=8, do_sample=False)[0, inputs["input_ids"].shape[1] :]
        assert tokenizer.decode(output, skip_special_tokens=True).strip() == answer


def test_bad_data_ends_the_run_before_a_model_is_loaded(tiny_model, tmp_path, monkeypatch):
    job = make_job(tmp_path, tiny_model, splits=("train",))
    with (tmp_path / "train.jsonl").open("a") as file:
        file.write('{"prompt": "hello", "completion": ""}\n')
    monkeypatch.setattr(
        "finetune_trainer.models.base_model.load_model", lambda *_, **__: pytest.fail("a model was loaded")
    )
    code, report, _ = do(job)
    assert code == ExitCode.DATASET_INVALID
    assert report.failure.reason == "DatasetInvalid"
    assert "line 41" in report.failure.message
    assert report.dataset.train.bad_rows == 1


@pytest.mark.parametrize(
    ("spec", "code", "words"),
    [
        ({"baseModel": "test/tiny-lama"}, ExitCode.MODEL_NOT_FOUND, ["test/tiny-lama", "it has test/tiny-llama"]),
        ({"lora": {"targetModules": "q_proj,nose"}}, ExitCode.SPEC_INVALID, ["spec.lora.targetModules", "nose"]),
        ({"lora": {"targetModules": "norm"}}, ExitCode.SPEC_INVALID, ["spec.lora.targetModules"]),
        (
            {"lora": {"targetModules": "q_proj,embed_tokens"}},
            ExitCode.SPEC_INVALID,
            ["spec.lora.targetModules", "embed_tokens is a table of embeddings"],
        ),
        (
            {"lora": {"targetModules": "lm_head"}, "artifact": {"merge": True}},
            ExitCode.SPEC_INVALID,
            ["artifact.merge", "lora.targetModules", "shares with its embeddings"],
        ),
    ],
)
def test_what_a_job_asks_in_vain_is_refused_by_name(tiny_model, tmp_path, spec, code, words, capsys):
    got, report, _ = do(make_job(tmp_path, tiny_model, splits=("train",), **spec))
    assert got == code
    assert all(word in report.failure.message for word in words)
    assert report.failure.next_step
    assert "Traceback" not in capsys.readouterr().err


def test_a_refused_target_names_the_modules_that_there_are(tiny_model, tmp_path):
    _, report, _ = do(make_job(tmp_path, tiny_model, splits=("train",), lora={"targetModules": "nose"}))
    assert "q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj" in report.failure.next_step


@pytest.mark.parametrize("spec", [{"lora": {"dropout": 0.99999999}}, {"hyperparameters": {"learningRate": 1e-14}}])
def test_a_version_that_has_learnt_nothing_says_so(tiny_model, tmp_path, spec):
    hyper = {"epochs": 0.4} | spec.pop("hyperparameters", {})
    code, report, _ = do(make_job(tmp_path, tiny_model, splits=("train",), hyperparameters=hyper, **spec))
    assert code == ExitCode.OK
    (said,) = report.result.warnings
    assert said.startswith("the tuned model answers as its base model does")


def test_a_loss_that_is_no_number_ends_the_run(tiny_model, tmp_path, monkeypatch):
    job = make_job(
        tmp_path,
        tiny_model,
        splits=("train",),
        method="Full",
        hyperparameters={"learningRate": 1.0, "maxGradNorm": 1000, "epochs": 200, "warmupRatio": 0},
    )
    import torch

    no_number = by_loss(lambda *args: loss_sum(*args) * torch.tensor(float("nan")))
    monkeypatch.setattr(objective, "LIKELIHOOD", no_number)
    code, report, _ = do(job)
    assert code == ExitCode.TRAINING_DIVERGED
    assert report.failure.message == "the training loss of step 1 is not a finite number"
    assert "learningRate" in report.failure.next_step


def test_a_loss_that_explodes_and_stays_a_number_makes_no_version(tiny_model, tmp_path):
    exploding = {"learningRate": 1.0, "maxGradNorm": 1000, "schedule": "Constant", "warmupRatio": 0}
    job = make_job(tmp_path, tiny_model, splits=("train",), method="Full", hyperparameters=exploding)
    code, report, _ = do(job)
    assert code == ExitCode.TRAINING_DIVERGED
    assert report.failure.message.startswith("the training loss rose from ")
    assert not (tmp_path / "model").exists()
    assert report.loss.train, "the curve shows it"


def test_a_loss_that_rises_and_explodes_no_further_is_told_beside_the_version(tiny_model, tmp_path, monkeypatch):
    rising = by_loss(lambda *args: loss_sum(*args) * next(factors))
    factors = itertools.chain([0.3], itertools.repeat(0.9))
    monkeypatch.setattr(objective, "LIKELIHOOD", rising)
    spec = {"hyperparameters": {"learningRate": 1e-6, "microBatchSize": 8}}
    job = make_job(tmp_path, tiny_model, splits=("train",), **spec)
    code, report, _ = do(job)
    assert (code, len(report.result.warnings)) == (ExitCode.OK, 1)
    assert report.result.warnings[0].startswith("the training loss rose from ")
    for page in ("README.md", "report.html"):
        assert report.result.warnings[0] in (Path(job.output) / "model" / page).read_text()


def test_a_full_disk_leaves_no_half_artifact(tiny_model, tmp_path, monkeypatch):
    def full_disk(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    job = make_job(tmp_path, tiny_model, splits=("train",), hyperparameters={"epochs": 0.4})
    monkeypatch.setattr("finetune_trainer.output.artifact.save_weights", full_disk)
    code, report, _ = do(job)
    assert code == ExitCode.ARTIFACT_FAILED
    assert "No space left on device" in report.failure.message
    assert sorted(path.name for path in Path(job.output).iterdir()) == [
        "attempt",
        "attempt-holder",
        "checkpoints",
        "metrics.jsonl",
        "moment.json",
    ]


@pytest.mark.alike
@pytest.mark.parametrize("words", ERRORS)
def test_out_of_device_memory_has_its_own_reason(tiny_model, tmp_path, monkeypatch, words):
    def too_large(*_args):
        raise ERRORS[words]

    monkeypatch.setattr(objective, "LIKELIHOOD", by_loss(too_large))
    code, report, _ = do(make_job(tmp_path, tiny_model, splits=("train",)))
    assert code == ExitCode.OUT_OF_MEMORY
    assert report.failure.reason == "OutOfMemory"


def test_a_gpu_whose_memory_a_neighbour_has_is_no_bug_of_the_trainer(tiny_model, tmp_path, monkeypatch):
    def room_here():
        raise ERRORS["driver"]

    monkeypatch.setattr("finetune_trainer.models.memory_fit.room_here", room_here)
    code, report, _ = do(make_job(tmp_path, tiny_model, splits=("train",)))
    assert (code, report.failure.reason) == (ExitCode.OUT_OF_MEMORY, "OutOfMemory")
    assert report.failure.message == (
        "CUDA error: out of memory, outside of what torch itself has taken: another process may hold the GPU's memory"
    )


def test_a_bug_is_reported_without_the_words_of_its_error(tiny_model, tmp_path, monkeypatch, caplog):
    def bug(*_args):
        raise KeyError("somebody's secret text")

    monkeypatch.setattr(objective, "LIKELIHOOD", by_loss(bug))
    code, report, _ = do(make_job(tmp_path, tiny_model, splits=("train",)))
    assert code == ExitCode.CRASHED
    assert report.failure.reason == "TrainerCrashed"
    assert "secret" not in report.failure.message
    assert "KeyError at test_train.py:" in report.failure.message
    assert "somebody's secret text" in caplog.text


def test_sigterm_leaves_a_checkpoint_and_the_next_attempt_ends_as_if_nothing_had_happened(tiny_model, tmp_path):
    spec = {"lora": {"dropout": 0.1}, "hyperparameters": {"checkpointSteps": 100}}
    straight = make_job(tmp_path / "straight", tiny_model, **spec)
    assert do(straight)[0] == ExitCode.OK

    broken = make_job(tmp_path / "broken", tiny_model, **spec)
    seen = []
    reporter, interruption = Reporter(broken, interval=0.0), Interruption()
    original = reporter.update

    def update(**fields):
        original(**fields)
        if fields.get("progress") and fields["progress"].step == 7 and not seen:
            seen.append(True)
            signal.raise_signal(signal.SIGTERM)

    reporter.update = update
    work = lambda: execute(broken, reporter, interruption, allow_local=True)  # noqa: E731
    assert outcome.run_to_end(work, reporter, interruption) == ExitCode.INTERRUPTED
    assert reporter.report.phase == "Interrupted"
    steps = [path.name for path in (Path(broken.output) / "checkpoints").iterdir()]
    assert steps == ["step-00000007"]

    assert do(broken)[0] == ExitCode.OK
    same_result(straight, broken)


def test_an_artifact_that_a_platform_has_lost_is_made_again_and_nothing_is_done_twice(
    tiny_model, tmp_path, monkeypatch
):
    spec = {"hyperparameters": {"epochs": 0.4}, "evaluation": {"maxNewTokens": 2}, "trackers": {"tensorBoard": {}}}
    job = make_job(tmp_path, tiny_model, splits=("train", "test"), **spec)
    job = job.model_copy(update={"artifact_folder": str(tmp_path / "to-be-taken" / "model")})
    code, before, _ = do(job)
    assert code == ExitCode.OK
    shutil.rmtree(tmp_path / "to-be-taken")
    monkeypatch.setattr(KeptAnswers, "add", lambda *_: pytest.fail("it was asked again"))
    monkeypatch.setattr(step_trainer.StepTrainer, "record_step", lambda *_: pytest.fail("it learnt again"))
    code, after, _ = do(job)
    assert code == ExitCode.OK
    assert after.evaluation == before.evaluation
    assert (tmp_path / "to-be-taken" / "model" / "tensorboard").is_dir()


def test_an_interruption_before_training_stops_at_once(tiny_model, tmp_path, monkeypatch):
    job = make_job(tmp_path, tiny_model, splits=("train",))

    def asked(*_args, **_kwargs):
        signal.raise_signal(signal.SIGTERM)
        pytest.fail("it went on")

    monkeypatch.setattr("finetune_trainer.train.check_dataset", asked)
    code, report, _ = do(job)
    assert (code, report.phase) == (ExitCode.INTERRUPTED, "Interrupted")


def test_checkpoints_of_other_data_are_refused(tiny_model, tmp_path):
    job = make_job(tmp_path, tiny_model, splits=("train",), hyperparameters={"epochs": 0.4})
    with whole_folder(Path(job.output) / "checkpoints" / "step-00000001", step=1) as folder:
        (folder / "state.json").write_text(json.dumps({"notes": {"fingerprint": "another", "seconds": 1}}))
    code, report, _ = do(job)
    assert code == ExitCode.SPEC_INVALID
    assert "another spec or other data" in report.failure.message
    assert "a file of spec.dataset has changed" in report.failure.message
    assert "in a cluster bring the data back as they were and set spec.retryNonce" in report.failure.next_step


def test_a_release_that_knows_one_more_field_knows_the_checkpoints_of_the_one_before(tiny_model, tmp_path):
    class Later(FineTuneJobSpec):
        one_more: int = 7

    job = make_job(tmp_path, tiny_model, hyperparameters={"seed": 3})
    same, other = (Later.model_validate({**job.spec.wire(), **more}) for more in ({}, {"oneMore": 8}))
    assert fingerprint(job.model_copy(update={"spec": same})) == fingerprint(job)
    assert fingerprint(job.model_copy(update={"spec": other})) != fingerprint(job)
