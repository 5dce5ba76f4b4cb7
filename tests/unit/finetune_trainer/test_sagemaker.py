"""The container contract of SageMaker, in a temporary root: channels in, checkpoints and artifact out, failure file."""

import argparse
import base64
import json
import os
import shutil
import sys
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from finetune_api.exit_codes import ExitCode
from finetune_api.names import NODE_VARIABLE
from finetune_api.trainer import Report
from finetune_trainer import sagemaker
from finetune_trainer.storage.durable import read_manifest, sha256_of
from tests.unit.finetune_trainer.computing import ranks
from tests.unit.finetune_trainer.jobs import write_rows

ARTIFACT = "s3://bucket/models/job-1/output/model/model"


def fill(root: Path, cache: Path, *, attempt: int = 1, rows: int = 160, base: str = "test/tiny-llama") -> None:
    """What SageMaker and the operator put into a container."""
    data = root / "input" / "data"
    for channel in ("job", "train", "validation"):
        (data / channel).mkdir(parents=True, exist_ok=True)
    (root / "model").mkdir()
    (root / "output").mkdir()
    shutil.copytree(cache / "test/tiny-llama", data / "base")
    for index, split in enumerate(("train", "validation")):
        converted = write_rows(
            data / split / f"finetune-uid-{attempt}-{split}-abc.jsonl", rows >> (2 * index), seed=index
        )
        lines = [json.loads(line) for line in converted.open()]
        roles = {"system": "system", "user": "prompt", "assistant": "completion"}
        messages = [{"messages": [{"role": r, "content": line[f]} for r, f in roles.items()]} for line in lines]
        converted.write_text("".join(json.dumps(line) + "\n" for line in messages))
    spec = {
        "connectionRef": {"name": "sagemaker"},
        "baseModel": base,
        "modelRef": {"name": "colours"},
        "dataset": {split: {"uri": f"s3://theirs/{split}.csv"} for split in ("train", "validation")},
        "hyperparameters": {"epochs": 2, "learningRate": 0.01, "batchSize": 8, "checkpointSteps": 5},
    }
    job = {"namespace": "team-a", "name": "colours", "uid": "1234", "attempt": attempt, "spec": spec}
    (data / "job" / f"finetune-uid-{attempt}-job.json").write_text(json.dumps(job | {"artifactURI": ARTIFACT}))


def report(path: Path) -> Report | None:
    return Report.model_validate_json(path.read_bytes()) if path.exists() else None


def steps_done(root: Path) -> int:
    record = root / "checkpoints" / "metrics.jsonl"
    return record.read_text().count('"loss"') if record.exists() else 0


def container(root: Path) -> BaseProcess:
    """The command in a process of its own, which has torch already."""
    process = ranks.context().Process(target=work, args=(root, dict(os.environ)))
    process.start()
    return process


def work(root: Path, environment: dict[str, str]) -> None:
    os.environ |= environment  # the fork server has that of its first test
    sys.exit(sagemaker.main(argparse.Namespace(root=root)))


def test_a_job_that_lost_its_instance_goes_on_in_another_container(tiny_model, tmp_path):
    root = tmp_path / "ml"
    fill(root, tiny_model)
    taken = container(root)
    deadline = time.monotonic() + 120
    while steps_done(root) < 12:
        assert taken.is_alive(), taken.exitcode
        assert time.monotonic() < deadline
        time.sleep(0.005)
    taken.terminate()
    assert ranks.ended([taken]) == [ExitCode.INTERRUPTED]
    assert not (root / "output" / "failure").exists(), "SageMaker stopped it: that is not a failure of the job"
    assert report(root / "checkpoints" / "report.json").phase == "Interrupted"

    root.rename(tmp_path / "gone")
    fill(root, tiny_model, attempt=2)
    shutil.copytree(tmp_path / "gone" / "checkpoints", root / "checkpoints")
    assert steps_done(root) < 40
    record = root / "checkpoints" / "metrics.jsonl"
    first, *others = record.read_text().splitlines()
    record.write_text("\n".join([json.dumps(json.loads(first) | {"loss": 123.0}), *others]) + "\n")
    assert sagemaker.main(argparse.Namespace(root=root)) == ExitCode.OK

    found = report(root / "model" / "report.json")
    assert (found.phase, found.attempt, found.result.steps) == ("Succeeded", 2, 40)
    assert found.loss.train[0].value == 123.0, "it went on: what was recorded before is not done again"
    assert found.loss.validation[-1].step == 40
    folder = root / "model" / "model"
    assert (found.result.artifact.uri, found.result.artifact.sha256) == (ARTIFACT, sha256_of(folder / "manifest.json"))
    assert read_manifest(folder)["baseModel"] == "test/tiny-llama"
    assert sorted(path.name for path in (root / "model").iterdir()) == ["model", "report.json"]
    assert list((root / "checkpoints" / "checkpoints").iterdir()), "the artifact is not in S3 yet"


@pytest.mark.parametrize(
    ("spoil", "code", "said"),
    [
        (lambda root: shutil.rmtree(root / "input/data/job"), ExitCode.SPEC_INVALID, "SpecInvalid: channel job has 0"),
        (
            lambda root: next((root / "input/data/job").iterdir()).write_text('{"uid": 1}'),
            ExitCode.SPEC_INVALID,
            "SpecInvalid: the job channel holds no job for this image: namespace",
        ),
        (lambda root: (root / "input/data/train/more").touch(), ExitCode.SPEC_INVALID, "SpecInvalid: channel train ha"),
        (
            lambda root: (root / "input/data/base/config.json").unlink(),
            ExitCode.MODEL_NOT_FOUND,
            "ModelNotInCache: test/tiny-llama is not in the model cache",
        ),
        (
            lambda root: next((root / "input/data/train").iterdir()).write_text('{"messages": []}\n'),
            ExitCode.DATASET_INVALID,
            "DatasetInvalid: train.jsonl: ",
        ),
    ],
)
def test_a_failure_is_left_where_sagemaker_quotes_it_from(tiny_model, tmp_path, spoil, code, said):
    fill(tmp_path, tiny_model)
    spoil(tmp_path)
    assert sagemaker.main(argparse.Namespace(root=tmp_path)) == code
    text = (tmp_path / "output" / "failure").read_text()
    assert text.startswith(said)
    assert len(text.encode()) <= 1024
    assert not (tmp_path / "model" / "report.json").exists()


def on_instances(root: Path, names: list[str], current: str) -> None:
    """What SageMaker tells each of a job's instances."""
    config = root / "input" / "config"
    config.mkdir(parents=True)
    told = {"current_host": current, "hosts": names, "network_interface_name": "lo"}
    told["current_instance_type"] = "ml.g5.xlarge"
    (config / "resourceconfig.json").write_text(json.dumps(told))


@pytest.mark.parametrize("rank", ["0", "1"])
def test_only_the_first_process_leaves_reports(tiny_model, tmp_path, monkeypatch, rank):
    fill(tmp_path, tiny_model, rows=8)
    job = sagemaker.trainer_job(tmp_path)

    def trained(_job, reporter, _interruption, **_):
        monkeypatch.delenv("RANK")  # as a rank forgets it, so that nobody shares out steps among them
        reporter.update(phase="Running")

    monkeypatch.setattr(sagemaker, "execute", trained)
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("FINETUNE_JOB", job.model_dump_json(by_alias=True, exclude_none=True))
    monkeypatch.setenv("FINETUNE_RANKS", str(tmp_path))
    assert sagemaker.main(argparse.Namespace(root=tmp_path)) == ExitCode.OK
    left = [(tmp_path / folder / "report.json").exists() for folder in ("checkpoints", "model")]
    assert left == [rank == "0"] * 2


def test_several_processes_train_one_model_and_the_first_speaks_and_writes_for_all(tiny_model, tmp_path, monkeypatch):
    """Two instances without GPUs, here two addresses of one machine: each starts a process as for each of its GPUs."""
    names, roots = ["127.0.0.1", "127.0.0.2"], [tmp_path / "first", tmp_path / "second"]
    for name, root in zip(names, roots, strict=True):
        fill(root, tiny_model, rows=48)
        on_instances(root, names[::-1], name)
        (root / "checkpoints").mkdir()
    (roots[1] / "checkpoints" / "report.json").write_text("of an instance that was taken away")
    for variable in (NODE_VARIABLE, "GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        monkeypatch.setenv(variable, "lo")  # what the first instance sets goes with the test
    second = container(roots[1])
    assert sagemaker.main(argparse.Namespace(root=roots[0])) == ExitCode.OK
    assert ranks.ended([second], 300) == [ExitCode.OK]
    found = report(roots[0] / "model" / "report.json")
    assert (found.phase, found.progress.step, found.result.artifact.uri) == ("Succeeded", 12, ARTIFACT)
    assert read_manifest(roots[0] / "model" / "model")
    assert not [root for root in roots if (root / "output" / "failure").exists()]
    assert [list((roots[1] / folder).iterdir()) for folder in ("model", "checkpoints")] == [[], []]


@pytest.mark.parametrize(
    ("hosts", "current", "number", "rendezvous"),
    [
        (["algo-10", "algo-2", "algo-1"], "algo-1", 0, "algo-1:29500"),
        (["algo-10", "algo-2", "algo-1"], "algo-10", 2, "algo-1:29500"),
        (["algo-1"], "algo-1", 0, None),
        (None, "", 0, None),
    ],
)
def test_an_instance_knows_its_number_and_where_they_meet(tmp_path, hosts, current, number, rendezvous):
    if hosts:
        on_instances(tmp_path, hosts, current)
    found = sagemaker.Hosts.of(tmp_path)
    assert (found.number, found.rendezvous) == (number, rendezvous)


def test_a_step_has_a_row_for_each_gpu_of_all_instances(tiny_model, tmp_path, monkeypatch):
    fill(tmp_path, tiny_model, rows=8)
    on_instances(tmp_path, ["algo-1", "algo-2"], "algo-2")
    monkeypatch.setattr(sagemaker, "gpus", lambda: 8)
    job = sagemaker.trainer_job(tmp_path)
    assert (job.nodes, job.ranks_per_node, job.rendezvous) == (2, 4, "algo-1:29500")
    assert job.spec.resources.instance_type == "ml.g5.xlarge"


OWN_CODE = """
import shutil
from finetune_trainer import recipe
import helper
run = recipe.context()
run.report(step=1, total_steps=1, loss=helper.LOSS)
shutil.copytree(run.base_model, run.output, dirs_exist_ok=True)
"""


def test_code_of_ones_own_trains_in_the_container_with_what_is_beside_it(tiny_model, tmp_path, monkeypatch):
    fill(tmp_path, tiny_model, rows=8)
    file = next((tmp_path / "input" / "data" / "job").iterdir())
    job = json.loads(file.read_text())
    job["spec"] |= {"method": "Full", "code": {"configMapRef": {"name": "my-recipe", "key": "train.py"}}}
    file.write_text(json.dumps(job))
    channel = tmp_path / "input" / "data" / "code"
    channel.mkdir()
    files = {"train.py": OWN_CODE, "helper.py": "LOSS = 0.125"}
    coded = {name: base64.b64encode(text.encode()).decode() for name, text in files.items()}
    (channel / "finetune-uid-1-code-abc.jsonl").write_text(json.dumps({"files": coded}))
    repository = Path(__file__).resolve().parents[3]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(str(repository / part) for part in ("operator", "trainer_image")))
    monkeypatch.setattr(sagemaker, "gpus", lambda: 4)
    assert sagemaker.main(argparse.Namespace(root=tmp_path)) == ExitCode.OK
    found = report(tmp_path / "model" / "report.json")
    assert (found.phase, found.result.steps, found.result.train_loss) == ("Succeeded", 1, 0.125)
    assert read_manifest(tmp_path / "model" / "model")["codeSHA256"]


@pytest.mark.parametrize("version", ["the one that is meant", "another one", "none"])
def test_the_active_version_is_the_one_that_was_meant_or_nowhere(tiny_model, tmp_path, version):
    fill(tmp_path, tiny_model, rows=8)
    manifest = tmp_path / "input" / "data" / "active" / "manifest.json"
    if version != "none":
        manifest.parent.mkdir()
        manifest.write_text("{}")
    digest = sha256_of(manifest) if version == "the one that is meant" else "0" * 64
    file = next((tmp_path / "input" / "data" / "job").iterdir())
    file.write_text(json.dumps(json.loads(file.read_text()) | {"activeVersion": {"version": 3, "sha256": digest}}))
    found = sagemaker.trainer_job(tmp_path).active_version
    assert (found.version, found.folder) == (3, str(manifest.parent) if version == "the one that is meant" else None)


@pytest.mark.parametrize(("gpus", "rows_of_a_step", "ranks"), [(0, 8, 1), (1, 8, 1), (4, 8, 4), (8, 2, 2)])
def test_there_are_as_many_processes_as_gpus_that_get_a_row(
    tiny_model, tmp_path, monkeypatch, gpus, rows_of_a_step, ranks
):
    root = tmp_path / "ml"
    fill(root, tiny_model, rows=8)
    file = next((root / "input" / "data" / "job").iterdir())
    file.write_text(file.read_text().replace('"batchSize": 8', f'"batchSize": {rows_of_a_step}'))
    monkeypatch.setattr(sagemaker, "gpus", lambda: gpus)
    assert sagemaker.trainer_job(root).ranks_per_node == ranks


def test_a_report_that_cannot_be_written_stops_nothing(tmp_path, caplog):
    (tmp_path / "checkpoints").touch()
    told = Report(namespace="a", name="b", uid="c", attempt=1, phase="Running")
    sagemaker.leave_report(tmp_path / "checkpoints" / "report.json", told)
    assert "could not be written" in caplog.text
