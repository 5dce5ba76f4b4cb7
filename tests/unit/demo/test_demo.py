"""The demo's pure parts, and that the manifests of the quickstart fit each other."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import yaml

from demo import quickstart
from demo.__main__ import carry_data, install, main
from demo.carrier import Carrier
from demo.console import Console, DemoError
from demo.follow import _JobView, progress_line
from demo.kubectl import Kubectl
from demo.result import curl, sparkline
from demo.target import Current, Images, Target

FOLDER = quickstart.FOLDER


def loaded(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text(encoding="utf-8")))


def quickstart_job() -> dict[str, Any]:
    return loaded(FOLDER / "finetunejob.yaml")[0]


@pytest.mark.parametrize(
    ("values", "drawn"),
    [([3.0, 2.0, 1.0], "█▅▁"), ([1.0, 1.0], "▁▁"), ([0.5], "▁"), ([float(n) for n in range(100)], "▁█")],
    ids=["falling", "level", "one point", "more points than cells"],
)
def test_a_curve_goes_from_its_lowest_to_its_highest_block(values: list[float], drawn: str) -> None:
    line = sparkline(values, cells=8)
    assert len(line) == min(len(values), 8)
    assert (line[0], line[-1]) == (drawn[0], drawn[-1])


def test_progress_shows_both_losses_and_fits_eighty_columns() -> None:
    line = progress_line(
        {
            "progress": {"step": 27, "totalSteps": 70, "percent": 38, "etaSeconds": 80, "tokensPerSecond": 412.3},
            "loss": {"train": [{"step": 27, "value": 0.384}], "validation": [{"step": 24, "value": 0.541}]},
        }
    )
    assert "38%  step 27/70  loss 0.384  validation 0.541" in line
    assert len(line.partition("  412 tokens/s")[0]) + len("[ 157.6s] ") < 80


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--name", "Bad name"], "error: cluster name 'Bad name': use at most 20 lower-case letters"),
        (["--rows", "train"], "'train': write train, validation, test with a number of rows, such as train=100"),
        (["--rows", "train=5", "tset=5"], "'tset=5': write train, validation, test with a number of rows"),
        (["--rows", "test=0"], "'test=0': write train"),
    ],
)
def test_a_wrong_word_on_the_command_line_is_answered_in_words(
    capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    with contextlib.suppress(SystemExit):
        assert main(["--down", *words]) == 1
    told = capsys.readouterr()
    assert said in told.out + told.err


def test_while_the_test_set_is_asked_progress_shows_answers() -> None:
    progress = {"step": 70, "totalSteps": 70, "percent": 100, "answers": 90, "totalAnswers": 400}
    assert progress_line({"progress": progress}) == "██░░░░░░░░  22%  answer 90/400"
    told: list[str] = []
    console = SimpleNamespace(step=told.append, live=lambda _: None, is_terminal=False)
    view = _JobView(cast("Console", console))
    for answers in (0, 20, 100, 400):
        status = {"phase": "Evaluating", "progress": progress | {"answers": answers}}
        view.show({"metadata": {"name": "a"}, "status": status})
    answered = [line.rpartition("  ")[2] for line in told if "answer" in line]
    assert answered == ["answer 0/400", "answer 100/400", "answer 400/400"]


def test_progress_without_losses_shows_steps() -> None:
    assert progress_line({"progress": {"step": 0, "totalSteps": 70}}).endswith("0%  step 0/70")


class Answers(Kubectl):
    """kubectl whose jobs are given."""

    def __init__(self, jobs: dict[str, str]) -> None:
        super().__init__("kubectl")
        self._jobs = [{"metadata": {"name": name}, "status": {"phase": phase}} for name, phase in jobs.items()]

    def get(self, *arguments: str) -> dict[str, Any]:
        assert arguments[0] == "finetunejobs"
        return {"items": self._jobs}

    def manifests(self, path: Path) -> list[dict[str, Any]]:
        return loaded(path)


@pytest.mark.parametrize(
    ("jobs", "expected"),
    [
        ({}, ("sentiment-1", False)),
        ({"sentiment-1": "Succeeded", "sentiment-9": "Failed"}, ("sentiment-10", False)),
        ({"sentiment-1": "Succeeded", "sentiment-2": "Running"}, ("sentiment-2", True)),
        ({"other-1": "Running", "sentiment-x": "Running"}, ("sentiment-1", False)),
    ],
    ids=["first", "next number", "goes on with the one that runs", "others' jobs are left alone"],
)
def test_each_demo_follows_a_job_of_its_own(jobs: dict[str, str], expected: tuple[str, bool]) -> None:
    job, runs_already = quickstart.next_job(Answers(jobs))
    assert (job["metadata"]["name"], runs_already) == expected


def test_the_image_goes_where_a_manifest_names_one_and_nowhere_else() -> None:
    connection = quickstart.with_image(loaded(FOLDER / "connection.yaml")[0], "r/t:1")
    assert connection["spec"]["huggingFace"]["trainerImage"] == "r/t:1"
    carrier = quickstart.with_image(loaded(FOLDER / "carrier.yaml")[0], "r/t:1")
    assert [container["image"] for container in carrier["spec"]["containers"]] == ["r/t:1"]
    cache = quickstart.with_image(loaded(quickstart.CACHE_JOB)[0], "r/t:1")
    assert [container["image"] for container in cache["spec"]["template"]["spec"]["containers"]] == ["r/t:1"]
    namespace = loaded(FOLDER / "namespace.yaml")[0]
    assert quickstart.with_image(dict(namespace), "r/t:1") == namespace


def test_the_quickstarts_manifests_fit_each_other() -> None:
    job, connection = quickstart_job(), loaded(FOLDER / "connection.yaml")[0]
    namespace = loaded(FOLDER / "namespace.yaml")[0]["metadata"]
    claims = {claim["metadata"]["name"] for claim in loaded(FOLDER / "volumes.yaml")}
    settings = connection["spec"]["huggingFace"]
    assert job["spec"]["connectionRef"]["name"] == connection["metadata"]["name"]
    assert job["spec"]["baseModel"] == quickstart.MODEL
    assert job["metadata"]["namespace"] == namespace["name"] == quickstart.NAMESPACE
    assert connection["spec"]["namespaceSelector"]["matchLabels"].items() <= namespace["labels"].items()
    assert settings["modelCache"]["volume"]["persistentVolumeClaim"]["claimName"] in claims
    assert settings["artifacts"]["uri"].removeprefix("pvc://") in claims
    assert len(quickstart.data_files(job)) == 3
    assert quickstart.MODEL in loaded(quickstart.CACHE_JOB)[0]["spec"]["template"]["spec"]["containers"][0]["args"]


def test_the_curl_command_survives_an_apostrophe() -> None:
    command = curl("http://h", "m", [{"role": "user", "content": "it's"}])
    body = command.partition("-d '")[2].removesuffix("'").replace("'\\''", "'")
    assert json.loads(body)["messages"][0]["content"] == "it's"


class Remembers(Carrier):
    """A pod that keeps what is sent to it."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}

    def send(self, data: bytes, target: str) -> bool:
        self.files[target] = data
        return True


def test_at_most_so_many_rows_of_a_split_are_carried_and_of_others_all(tmp_path: Path) -> None:
    content = {name: "".join(f"{name} {row}\n" for row in range(5)) for name in ("train", "validation", "test")}
    for name, text in content.items():
        (tmp_path / f"{name}.jsonl").write_text(text)
    pod = Remembers()
    carry_data(pod, tmp_path, quickstart_job(), Console(), {"train": 2, "test": 50})
    assert pod.files == {
        "/data/train.jsonl": b"train 0\ntrain 1\n",
        "/data/validation.jsonl": content["validation"].encode(),
        "/data/test.jsonl": content["test"].encode(),
    }


def test_a_cluster_that_kubectl_does_not_reach_is_told_with_a_next_step(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "missing"))
    monkeypatch.setattr("demo.target._tool", lambda _: "false")
    with pytest.raises(DemoError, match="kubectl reaches no cluster: kubectl config current-context") as told:
        Current(registry="", given={}).prepare(Console())
    assert "kubectl config get-contexts" in told.value.next_step


def test_a_release_that_a_killed_helm_has_left_is_told_with_what_to_do() -> None:
    def helm(*_: str) -> None:
        raise DemoError("UPGRADE FAILED: another operation (install/upgrade/rollback) is in progress")

    target = SimpleNamespace(kubectl=SimpleNamespace(apply=lambda _: None), helm=helm)
    with pytest.raises(DemoError, match="another operation") as told:
        install(cast("Target", target), Images("o", "t"), Console())
    assert "one was killed in the middle: run `make demo-down`, then `make demo`" in told.value.next_step
    assert "rollback finetune-operator" in told.value.next_step


def test_who_is_not_root_is_told_at_once_and_not_to_run_it_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr("tests.cluster.images.registry.has", lambda _repository, _tag: False)
    monkeypatch.setattr("tests.cluster.cluster.Cluster.is_up", lambda _: False)
    monkeypatch.setattr("demo.quickstart.fetch", lambda _: pytest.fail("something is fetched before"))
    assert main(["--name", "nobodys"]) == 1
    told = capsys.readouterr().out
    assert "needs root: run make as root, or with sudo" in told
    assert "again" not in told
    assert "CLUSTER=current" in told
