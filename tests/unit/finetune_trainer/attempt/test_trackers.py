"""Experiment trackers get a run's numbers, once and in one run; what is wrong with them never stops a training."""

import json
import shutil
import socket
import threading
from collections import defaultdict
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import parse_qs

import pytest
import requests
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import ENDPOINT_NOT_FOUND, PERMISSION_DENIED, UNAUTHENTICATED

from finetune_api.exit_codes import ExitCode
from finetune_api.names import TRACKERS_PREFIX
from finetune_api.trackers import TrackerState
from finetune_trainer.attempt import trackers
from finetune_trainer.attempt.interruption import Interruption
from finetune_trainer.attempt.mlflow_run import RUNS_FOLDER
from finetune_trainer.training.checkpoint_names import checkpoints_in
from finetune_trainer.training.tuning import checkpoints_of
from tests.unit.finetune_trainer.fake_service import FakeService, serving
from tests.unit.finetune_trainer.jobs import make_job
from tests.unit.finetune_trainer.output.kept_runs import at_step, run
from tests.unit.finetune_trainer.waiting import wait_until


class FakeMLflow(FakeService):
    """MLflow's REST API as far as a run needs it, with a token."""

    def __init__(self) -> None:
        super().__init__()
        self.runs: dict[str, dict] = {}
        self.params: dict[str, str] = {}
        self.metrics: dict[str, list[tuple[int, float]]] = defaultdict(list)
        self.experiments: dict[str, str] = {}
        self.tokens: set[str | None] = set()

    def answer(self, _method, path, headers, body):
        self.tokens.add(headers.get("Authorization"))
        call, _, query = path.partition("/api/2.0/mlflow/")[2].partition("?")
        asked = json.loads(body) if body else {}
        if any(self.params.get(one["key"], one["value"]) != one["value"] for one in asked.get("params", [])):
            changed = {"error_code": "INVALID_PARAMETER_VALUE", "message": "Changing param values is not allowed."}
            return 400, {}, json.dumps(changed).encode()
        said = self._said(call, asked, query)
        if said is None:
            missing = {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no"}
            return 404, {}, json.dumps(missing).encode()
        return 200, {}, json.dumps(said).encode()

    def _said(self, call, asked, query):
        if call == "experiments/get-by-name":
            name = query.partition("experiment_name=")[2]
            return {"experiment": self._experiment(name)} if name in self.experiments else None
        if call == "experiments/create":
            self.experiments[asked["name"]] = "7"
            return {"experiment_id": "7"}
        if call == "experiments/get":
            return {"experiment": self._experiment(next(iter(self.experiments)))}
        if call == "runs/search":
            uid = {"key": "finetune.dev/uid", "value": asked["filter"].split("'")[1]}
            found = [run for run, one in self.runs.items() if uid in one["tags"] and not one.get("deleted")]
            return {"runs": [self._of_run("runs/get", {}, f"run_id={run}")["run"] for run in found]}
        if call == "metrics/get-history":
            return {"metrics": self._history(parse_qs(query)["metric_key"][0])}
        return self._of_run(call, asked, query)

    def _of_run(self, call, asked, query):
        if call == "runs/create":
            run_id = f"run{len(self.runs)}"
            self.runs[run_id] = {"status": "RUNNING", "name": asked.get("run_name"), "tags": asked.get("tags", [])}
        elif call == "runs/get":
            run_id = query.partition("run_id=")[2] or query.partition("run_uuid=")[2]
            run_id = run_id.partition("&")[0]
        else:
            run_id = asked["run_id"]
        if call == "runs/log-batch":
            for metric in asked.get("metrics", []):
                self.metrics[metric["key"]].append((int(metric["step"]), metric["value"]))
            self.runs[run_id]["tags"] += asked.get("tags", [])
            self.params |= {param["key"]: param["value"] for param in asked.get("params", [])}
            return {}
        if call == "runs/set-tag":
            self.runs[run_id]["tags"].append({"key": asked["key"], "value": asked["value"]})
            return {}
        if call == "runs/update":
            self.runs[run_id]["status"] = asked.get("status", "RUNNING")
            return {"run_info": self._info(run_id)}
        params = [{"key": key, "value": value} for key, value in self.params.items()]
        return {"run": {"info": self._info(run_id), "data": {"params": params}}}

    def _history(self, key):
        return [{"key": key, "value": value, "step": step, "timestamp": 1} for step, value in self.metrics[key]]

    def _experiment(self, name):
        return {"experiment_id": self.experiments[name], "name": name, "lifecycle_stage": "active"}

    def _info(self, run_id):
        stage = "deleted" if self.runs[run_id].get("deleted") else "active"
        about = {"experiment_id": "7", "lifecycle_stage": stage, "artifact_uri": "mlflow-artifacts:/7"}
        return about | {"run_id": run_id, "run_uuid": run_id, "status": self.runs[run_id]["status"], "start_time": 1}


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """What MLflow keeps in the process, and the environment that it was told."""
    for name in ("TRACKING_URI", "EXPERIMENT_NAME", "TAGS", "RUN_ID", "TRACKING_TOKEN", "HTTP_REQUEST_MAX_RETRIES"):
        monkeypatch.setenv(f"MLFLOW_{name}", "")  # put back afterwards
        monkeypatch.delenv(f"MLFLOW_{name}")
    import mlflow

    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")
    mlflow.set_tracking_uri(None)
    mlflow.tracking.fluent._active_experiment_id = None
    monkeypatch.setattr(trackers, "LAST_SECONDS", 60.0)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv(f"{TRACKERS_PREFIX}MLFLOW_TRACKING_TOKEN", "secret-token\n")  # as a file has it
    monkeypatch.setenv(f"{TRACKERS_PREFIX}LD_PRELOAD", "/evil")
    with serving(FakeMLflow()) as found:
        yield found


def job(folder: Path, cache: Path, **asked):
    return make_job(folder, cache, hyperparameters={"epochs": 2, "checkpointSteps": 3}, trackers=asked)


def mlflow_at(address: str) -> dict:
    return {"trackingURI": address, "experiment": "colours", "secretRef": {"name": "mlflow"}}


def test_a_run_in_mlflow_has_every_step_and_a_link_in_status(server, tiny_model, tmp_path):
    code, report = run(job(tmp_path, tiny_model, mlflow=mlflow_at(server.address)))
    assert code == ExitCode.OK
    (tracked,) = report.trackers
    assert (tracked.name, tracked.problem) == ("mlflow", None)
    assert tracked.url == f"{server.address}/#/experiments/7/runs/run0"
    assert [step for step, _ in server.metrics["loss"]] == list(range(1, 11))
    last = server.metrics["eval_loss"][-1]
    assert last == (10, pytest.approx(report.loss.last_validation))
    assert server.runs["run0"]["status"] == "FINISHED"
    assert server.runs["run0"]["name"] == "team-a/colours"
    assert {"key": "finetune.dev/job", "value": "team-a/colours"} in server.runs["run0"]["tags"]
    settings = {"epochs": "2.0", "batchSize": "8", "schedule": "Cosine", "warmupRatio": "0.03", "lora.r": "16"}
    assert {name: server.params.get(name) for name in settings} == settings
    assert not {"num_train_epochs", "lr_scheduler_type", "per_device_train_batch_size"} & server.params.keys()
    assert server.tokens == {"Bearer secret-token"}
    assert list(server.experiments) == ["colours"]


def test_a_run_in_mlflow_ends_as_its_attempt_does(server, tiny_model, tmp_path):
    asked = job(tmp_path, tiny_model, mlflow=mlflow_at(server.address))
    assert run(asked, at_step(4, Interruption.request))[0] == ExitCode.INTERRUPTED
    assert server.runs["run0"]["status"] == "KILLED"
    with broken("_evaluate"):
        code, report = run(asked.model_copy(update={"attempt": 2}))
    assert (code, server.runs["run0"]["status"]) == (ExitCode.ARTIFACT_FAILED, "FAILED")
    assert (report.phase, report.trackers[0].problem) == ("Failed", None)
    with broken("_write_artifact"):
        assert run(asked.model_copy(update={"attempt": 3}))[0] == ExitCode.ARTIFACT_FAILED
    assert server.runs["run0"]["status"] == "FAILED"
    assert run(asked.model_copy(update={"attempt": 4}))[0] == ExitCode.OK
    assert server.runs["run0"]["status"] == "FINISHED"


def killed(asked, server):
    """An attempt that is killed in its training: nobody ends its run."""
    assert run(asked, at_step(4, Interruption.request))[0] == ExitCode.INTERRUPTED
    server.runs["run0"]["status"] = "RUNNING"
    return asked.model_copy(update={"attempt": asked.attempt + 1})


def test_an_attempt_goes_on_in_the_run_of_one_whose_note_was_lost_with_its_pod(server, tiny_model, tmp_path):
    again = killed(job(tmp_path, tiny_model, mlflow=mlflow_at(server.address)), server)
    shutil.rmtree(Path(again.output) / RUNS_FOLDER)
    code, report = run(again)
    assert (code, list(server.runs)) == (ExitCode.OK, ["run0"])
    assert report.trackers[0].url.endswith("/runs/run0")
    assert [step for step, _ in server.metrics["loss"]] == list(range(1, 11))
    assert server.runs["run0"]["status"] == "FINISHED"


@pytest.mark.alike
@pytest.mark.parametrize("noted", [True, False])
def test_a_parameter_that_another_image_makes_another_does_not_end_what_the_run_is_told(
    server, tiny_model, tmp_path, noted
):
    again = killed(job(tmp_path, tiny_model, mlflow=mlflow_at(server.address)), server)
    if not noted:
        shutil.rmtree(Path(again.output) / RUNS_FOLDER)
    server.params["transformers_version"] = "4.0.0"
    del server.params["epochs"]  # the attempt was killed before it had told it
    code, report = run(again)
    assert (code, report.trackers[0].problem, list(server.runs)) == (ExitCode.OK, None, ["run0"])
    assert [step for step, _ in server.metrics["loss"]] == list(range(1, 11))
    assert (server.params["transformers_version"], server.params["epochs"]) == ("4.0.0", "2.0")


def test_a_run_that_somebody_has_deleted_is_followed_by_a_new_one(server, tiny_model, tmp_path):
    again = killed(job(tmp_path, tiny_model, mlflow=mlflow_at(server.address + "/")), server)
    server.runs["run0"]["deleted"] = True
    server.params.clear()
    server.metrics.clear()
    code, report = run(again)
    assert (code, report.trackers[0].problem) == (ExitCode.OK, None)
    assert report.trackers[0].url == f"{server.address}/#/experiments/7/runs/run1"
    assert [step for step, _ in server.metrics["loss"]] == list(range(1, 11))


def test_another_job_of_the_same_name_has_a_run_of_its_own(server, tiny_model, tmp_path):
    again = killed(job(tmp_path, tiny_model, mlflow=mlflow_at(server.address)), server)
    assert run(again.model_copy(update={"uid": "another", "output": str(tmp_path / "new")}))[0] == ExitCode.OK
    assert {name: one["status"] for name, one in server.runs.items()} == {"run0": "RUNNING", "run1": "FINISHED"}


@pytest.mark.parametrize("noted", [True, False])
def test_a_killed_attempts_run_ends_with_the_next_one_though_it_comes_to_no_training(
    server, tiny_model, tmp_path, noted
):
    again = killed(job(tmp_path, tiny_model, mlflow=mlflow_at(server.address)), server)
    if not noted:
        shutil.rmtree(Path(again.output) / RUNS_FOLDER)
    with broken("_checked_data"):
        assert run(again)[0] == ExitCode.ARTIFACT_FAILED
    assert {name: one["status"] for name, one in server.runs.items()} == {"run0": "FAILED"}


def test_an_attempt_that_is_killed_behind_its_model_has_its_run_ended_by_the_next(server, tiny_model, tmp_path):
    asked = job(tmp_path, tiny_model, mlflow=mlflow_at(server.address))
    assert run(asked)[0] == ExitCode.OK
    server.runs["run0"]["status"] = "RUNNING"
    assert run(asked.model_copy(update={"attempt": 2}))[0] == ExitCode.OK
    assert {name: one["status"] for name, one in server.runs.items()} == {"run0": "FINISHED"}


def test_a_first_attempt_that_comes_to_no_training_asks_nothing_of_a_tracker(server, tiny_model, tmp_path):
    with broken("_checked_data"):
        assert run(job(tmp_path, tiny_model, mlflow=mlflow_at(server.address)))[0] == ExitCode.ARTIFACT_FAILED
    assert (server.tokens, server.runs) == (set(), {})


def test_an_earlier_run_that_cannot_be_ended_changes_nothing_of_how_the_attempt_ends(server, tiny_model, tmp_path):
    again = killed(job(tmp_path, tiny_model, mlflow=mlflow_at(server.address)), server)
    server.fault = lambda _method, _path: 500
    with broken("_checked_data"):
        assert run(again)[0] == ExitCode.ARTIFACT_FAILED


@contextmanager
def broken(part: str):
    """A part of `train` for which there is no room on the disk."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(f"finetune_trainer.train.{part}", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
        yield


def test_steps_that_a_killed_attempt_has_told_are_not_told_twice(server, tiny_model, tmp_path):
    asked = job(tmp_path, tiny_model, mlflow=mlflow_at(server.address))
    assert run(asked, at_step(5, Interruption.request))[0] == ExitCode.INTERRUPTED
    shutil.rmtree(checkpoints_in(checkpoints_of(asked))[-1])  # a kill leaves none of the last step
    code, report = run(asked.model_copy(update={"attempt": 2}))
    assert (code, report.trackers[0].problem, list(server.runs)) == (ExitCode.OK, None, ["run0"])
    assert [step for step, _ in server.metrics["loss"]] == list(range(1, 11))
    told = [step for step, _ in server.metrics["eval_loss"]]
    assert told == sorted(set(told))


@pytest.mark.alike
@pytest.mark.parametrize("fault", ["break", 401, 500])
def test_a_tracker_that_does_not_take_it_is_said_and_the_training_goes_on(server, tiny_model, tmp_path, fault):
    server.fault = lambda _method, _path: fault
    code, report = run(job(tmp_path, tiny_model, mlflow=mlflow_at(server.address), tensorBoard={}))
    assert code == ExitCode.OK
    followed, board = report.trackers
    assert "does not answer as it should" in followed.problem
    assert followed.url is None
    assert board.problem is None
    assert report.result.artifact.kind == "Adapter"


def test_a_tracker_that_goes_away_in_the_middle_is_said(server, tiny_model, tmp_path):
    def goes(_interruption):
        wait_until(lambda: server.metrics["loss"], what="no step came")
        server.fault = lambda _method, path: 500 if "log-batch" in path else None

    code, report = run(job(tmp_path, tiny_model, mlflow=mlflow_at(server.address)), at_step(3, goes))
    assert code == ExitCode.OK
    assert "some steps are missing" in report.trackers[0].problem
    assert report.trackers[0].url


def test_a_tracker_that_hangs_does_not_hold_up_the_run(server, tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr(trackers, "LAST_SECONDS", 1.0)  # for the one that does not hang
    hung, over = [], threading.Event()

    def hangs(_method, _path):
        hung.append(True)
        over.wait(8)

    server.fault = hangs
    asked = job(tmp_path, tiny_model, mlflow=mlflow_at(server.address), tensorBoard={})
    code, report = run(asked)
    over.set()
    assert code == ExitCode.OK
    assert hung
    assert report.trackers[0].problem == "it did not answer in time"
    assert report.trackers[1].problem is None
    found = scalars(Path(asked.output) / "model" / "tensorboard")
    assert sorted(found["loss"]) == list(range(1, 11)), "the other one has everything"


@pytest.mark.parametrize("step", [4, 5], ids=["between validations", "before a validation"])
def test_tensorboard_has_every_step_once_in_the_artifact(tiny_model, tmp_path, monkeypatch, step):
    same_second = SimpleNamespace(time=lambda: 1_700_000_000.0)  # which is all that names of its files have
    monkeypatch.setattr("tensorboardX.event_file_writer.time", same_second)
    asked = job(tmp_path, tiny_model, tensorBoard={})
    assert run(asked, at_step(step, Interruption.request))[0] == ExitCode.INTERRUPTED
    code, report = run(asked.model_copy(update={"attempt": 2}))
    assert code == ExitCode.OK
    assert [(one.name, one.url, one.problem) for one in report.trackers] == [("tensorBoard", "tensorboard", None)]
    found = scalars(Path(asked.output) / "model" / "tensorboard")
    assert sorted(found["loss"]) == list(range(1, 11))
    assert sorted(found["eval/loss"]) == [5, 10]
    assert found["eval/loss"][10] == pytest.approx(report.loss.last_validation, rel=1e-5)
    assert not (Path(asked.output) / "tensorboard").exists()


def test_what_a_killed_attempt_had_not_yet_told_is_told_by_the_next_one(server, tiny_model, tmp_path):
    """Also where nothing is left to learn."""
    asked = job(tmp_path, tiny_model, tensorBoard={}, mlflow=mlflow_at(server.address))
    with broken("_evaluate"):
        assert run(asked)[0] != ExitCode.OK
    (events,) = (Path(asked.output) / "tensorboard").iterdir()
    events.write_bytes(b"")
    for told in server.metrics.values():
        del told[1:]
    code, report = run(asked.model_copy(update={"attempt": 2}))
    assert (code, [one.problem for one in report.trackers]) == (ExitCode.OK, [None, None])
    found = scalars(Path(asked.output) / "model" / "tensorboard")
    assert (sorted(found["loss"]), sorted(found["eval/loss"])) == (list(range(1, 11)), [5, 10])
    assert [step for step, _ in server.metrics["loss"]] == list(range(1, 11))
    assert [step for step, _ in server.metrics["eval_loss"]] == [5, 10]


def scalars(folder: Path) -> dict[str, dict[int, float]]:
    """What TensorBoard would show: event files are length-framed protobuf messages; a start discards later steps."""
    from tensorboardX.proto.event_pb2 import Event, SessionLog

    found: dict[str, dict[int, float]] = defaultdict(dict)
    for path in sorted(folder.glob("events.*")):
        data, place = path.read_bytes(), 0
        while place < len(data):
            length = int.from_bytes(data[place : place + 8], "little")
            event = Event.FromString(data[place + 12 : place + 12 + length])
            place += 16 + length
            if event.session_log.status == SessionLog.START:
                for steps in found.values():
                    for late in [step for step in steps if step >= event.step]:
                        del steps[late]
            for value in event.summary.value:
                if value.HasField("simple_value"):
                    found[value.tag][event.step] = value.simple_value
    return {tag.removeprefix("train/"): steps for tag, steps in found.items()}


def test_an_image_without_the_library_refuses_before_anything_is_read(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: None if name == "mlflow" else name)
    code, report = run(job(tmp_path, tiny_model, mlflow=mlflow_at("https://mlflow.example.com")))
    assert code == ExitCode.SPEC_INVALID
    assert report.failure.message == "spec.trackers.mlflow: this image has no mlflow"
    assert "trackers extra" in report.failure.next_step
    assert report.dataset is None


def error_of(call):
    """What a library raises around what `call` raises."""
    try:
        try:
            call()
        except Exception:  # noqa: BLE001 - as MLflow does it
            raise MlflowException("API request to http://user:key@mlflow failed")  # noqa: B904
    except MlflowException as error:
        return error


@pytest.mark.parametrize(
    ("call", "why"),
    [
        (lambda: requests.get("http://127.0.0.1:1", timeout=5), "nothing listens at its address"),
        (lambda: requests.get("http://mlflow.invalid", timeout=5), "its name cannot be resolved"),
        (lambda: socket.getaddrinfo("mlflow.invalid", 80), "its name cannot be resolved"),
    ],
)
def test_why_a_tracker_cannot_be_reached_is_said_and_no_address(call, why):
    said = trackers._cause(error_of(call))
    assert said == f"it does not answer as it should (MlflowException): {why}"


@pytest.mark.parametrize(
    ("keys", "lacks"),
    [
        ({}, True),
        ({"TOKEN": " \n"}, True),
        ({"USERNAME": "u"}, True),
        ({"TOKEN": "t"}, False),
        ({"USERNAME": "u", "PASSWORD": "p"}, False),
    ],
    ids=str,
)
def test_a_secret_without_keys_of_mlflow_is_known_before_anything_is_tried(tmp_path, monkeypatch, keys, lacks):
    for name, value in keys.items():
        monkeypatch.setenv(f"{TRACKERS_PREFIX}MLFLOW_TRACKING_{name}", value)
    tracked = trackers.Trackers(job(tmp_path, tmp_path, mlflow=mlflow_at("https://nowhere.example"))).tracked
    told = "Secret mlflow has neither MLFLOW_TRACKING_TOKEN, nor MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
    assert (tracked or [None])[0] == (TrackerState(name="mlflow", problem=told) if lacks else None)


NO_SERVER = "trackers.mlflow.trackingURI leads to no server of MLflow: write what its page has in front of /#/"


@pytest.mark.parametrize(
    ("error", "keyed", "why"),
    [
        (MlflowException("no", error_code=UNAUTHENTICATED), True, "it does not accept the key in the Secret"),
        (MlflowException("no", error_code=PERMISSION_DENIED), True, "the key in the Secret may not do this"),
        (
            MlflowException("no", error_code=UNAUTHENTICATED),
            False,
            "it requires a key: name the Secret that has one in trackers.mlflow.secretRef",
        ),
        (
            MlflowException(
                "403 != 200. Response body: 'Invalid Host header - possible DNS rebinding attack detected'",
                error_code=PERMISSION_DENIED,
            ),
            False,
            "it does not take requests for the host of trackingURI: its --allowed-hosts has to list it",
        ),
        (
            MlflowException("Cannot set a deleted experiment 'colours' as the active experiment."),
            True,
            "the experiment is deleted there: have it restored, or name another one",
        ),
        (MlflowException("404 != 200", error_code=ENDPOINT_NOT_FOUND), False, NO_SERVER),
        (MlflowException("but the response body was not in a valid JSON format."), True, NO_SERVER),
        (ValueError("x"), True, None),
    ],
    ids=lambda one: str(one)[:40],
)
def test_why_mlflow_does_not_take_a_run_is_told_in_words(error, keyed, why):
    begins = f"it does not answer as it should ({type(error).__name__})"
    assert trackers._cause(error, keyed=keyed) == (f"{begins}: {why}" if why else begins)
