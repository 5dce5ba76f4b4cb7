"""What the Makefile and the throw-away cluster answer to names that they do not know."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from demo.__main__ import main as demo
from tests.cluster import binaries, images
from tests.cluster.__main__ import main as cluster
from tests.cluster.cluster import Cluster
from tests.cluster.paths import cluster_dir

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["cluster-down", "name=mine"], "no target reads name (did you mean NAME?); there are PYTHON NAME NODES"),
        (["demo", "REGISTERY=x", "CLUSTER=current"], "no target reads REGISTERY (did you mean REGISTRY?); there are"),
        (["clster-up"], "there is no target clster-up (did you mean cluster-up?): make alone lists all"),
        (["publish"], "there is no target publish: make alone lists all"),
        (["soak", "MINUTES=abc"], "MINUTES=abc: write a number above 0"),
        (["bench-operator", "JOBS=10 0", "ROWS=1e6"], "JOBS=0 ROWS=1e6: write a number above 0"),
        (["soak", "SOAK_MINUTES=long"], "SOAK_MINUTES=long: write a number above 0"),
        (["soak", "SOAK_MINUTE=5"], "no target reads SOAK_MINUTE (did you mean SOAK_MINUTES?)"),
        (["soak", "MINUTES="], "MINUTES=(nothing): write a number above 0"),
    ],
    ids=[
        "a variable in lower case",
        "a misspelt one",
        "a target",
        "a target that is like none",
        "no number",
        "no numbers",
        "no number by the test's own name",
        "a misspelt name of the test",
        "nothing",
    ],
)
def test_make_refuses_what_it_does_not_know(arguments: list[str], said: str) -> None:
    done = subprocess.run(
        ["make", "--dry-run", "--silent", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert said in done.stderr


def put(folder: Path, name: str, script: str) -> str:
    """A program of that name, and a PATH on which it is the first."""
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


@pytest.mark.parametrize("target", ["test", "test-cluster", "test-e2e", "test-chaos", "soak", "bench-operator"])
def test_who_is_not_root_is_told_before_make_installs_or_compiles_anything(tmp_path: Path, target: str) -> None:
    path = put(tmp_path, "id", "echo 1000")
    command = ["make", target, f"PYTHON={tmp_path / 'none'}"]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"PATH": path}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert f"make {target} starts a throw-away cluster, which needs root" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("target", ["venv", "cluster-status", "cluster-down", "demo-down", "demo"])
@pytest.mark.parametrize(
    ("script", "said"),
    [
        ('[ "$1" = --version ] && echo Python 3.9.2 || exit 1', "Python 3.9.2 is too old: name a Python 3.11 or newer"),
        ("", "none is not there: install Python 3.11 or newer, or name it with PYTHON="),
    ],
    ids=["old", "none"],
)
def test_a_python_that_does_not_do_is_told_in_words(tmp_path: Path, target: str, script: str, said: str) -> None:
    if script:
        put(tmp_path, "old", script)
    command = ["make", target, "NAME=nobodys", f"PYTHON={tmp_path / ('old' if script else 'none')}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "variables",
    [
        "NAME=a NODES=2 MINUTES=0.5 JOBS=10",
        "CLUSTER=current REGISTRY=r OPERATOR_IMAGE=a TRAINER_IMAGE=b",
        "JOBS=-j4",
        "https_proxy=http://proxy:3128 PYTHONPATH=lib XDG_CACHE_HOME=/cache CI=true",
    ],
    ids=["of a cluster", "of a demo", "of another tool", "of the environment"],
)
def test_make_takes_its_own_variables_and_those_of_the_environment(variables: str) -> None:
    command = ["make", "--dry-run", "help", *variables.split()]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize(
    ("given", "minutes"), [({}, "60"), ({"SOAK_MINUTES": "5"}, "5"), ({"SOAK_MINUTES": "5", "MINUTES": "7"}, "7")]
)
def test_the_soak_goes_on_for_as_long_as_either_name_says(given: dict[str, str], minutes: str) -> None:
    """The test reads SOAK_MINUTES: an hour in place of what somebody has set would be noticed after that hour."""
    others = {name: value for name, value in os.environ.items() if name not in {"MINUTES", "SOAK_MINUTES"}}
    command = ["make", "--dry-run", "--silent", "soak"]
    told = subprocess.run(command, cwd=ROOT, env=others | given, capture_output=True, text=True, check=True).stdout
    assert f"SOAK_MINUTES={minutes} " in told


@pytest.fixture
def only_mine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One cluster on this machine, and nothing that `down` would look for on it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cluster_dir("mine").mkdir(parents=True)
    (cluster_dir("mine") / "state.json").write_text("{}")
    monkeypatch.setattr(Cluster, "down", lambda _self: None)


@pytest.mark.usefixtures("only_mine")
@pytest.mark.parametrize("command", ["down", "status", "kubeconfig", "kubectl", "helm"])
def test_a_cluster_that_is_none_is_told_with_those_that_there_are(
    capsys: pytest.CaptureFixture[str], command: str
) -> None:
    """kubectl without a kubeconfig would ask whatever listens on this machine."""
    code = cluster([command, "--name", "other"])
    assert "there is no cluster other; on this machine: mine" in capsys.readouterr().err
    assert code == (0 if command in ("down", "status") else 1)


@pytest.mark.usefixtures("only_mine")
def test_a_demo_that_does_not_run_is_not_said_to_be_ended(capsys: pytest.CaptureFixture[str]) -> None:
    assert demo(["--name", "other", "--down"]) == 0
    assert "there is no cluster other; on this machine: mine" in capsys.readouterr().out
    demo(["--name", "mine", "--down"])
    assert "ending the cluster mine" in capsys.readouterr().out


@pytest.mark.usefixtures("only_mine")
@pytest.mark.parametrize(
    "words", [["-n", "x", "get", "pods", "-o", "wide"], ["get", "pods", "-n", "x"], ["--context=a", "-A", "get", "ftj"]]
)
def test_tools_of_a_cluster_take_their_flags_before_their_words_and_after(
    monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    called: list[list[str]] = []
    monkeypatch.setattr(Cluster, "programs", Path("/programs"))
    monkeypatch.setattr(os, "execve", lambda _program, given, _environment: called.append(given) or sys.exit(0))
    with pytest.raises(SystemExit):
        cluster(["kubectl", "--name", "mine", *words])
    assert called == [["kubectl", *words]]


def test_a_misspelt_flag_of_the_cluster_itself_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cluster(["status", "--nme", "x"])
    assert "unrecognized arguments: --nme x" in capsys.readouterr().err


@pytest.mark.usefixtures("only_mine")
@pytest.mark.parametrize("words", [["up", "--name", "new"], ["up", "--name", "new", "--api-only"], ["images"]])
def test_who_is_not_root_is_told_before_anything_is_compiled(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(images.registry, "has", lambda _repository, _tag: False)
    monkeypatch.setattr(binaries, "build", lambda _module="kube": pytest.fail("Kubernetes is compiled"))
    assert cluster(words) == 1
    assert "needs root: run make as root, or with sudo" in capsys.readouterr().err
