"""Builds of minutes say that they go on: whoever waits would take silence for an end."""

import sys
from pathlib import Path

import pytest

from tests.cluster import shell
from tests.cluster.errors import ClusterError

SLOWLY = "import sys, time; print('go: downloading a', flush=True); time.sleep(0.5); sys.exit({code})"


def test_a_long_command_tells_the_last_line_of_its_log_from_time_to_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shell, "REMINDER_SECONDS", 0.2)
    log = tmp_path / "go-kube.log"
    shell.logged([sys.executable, "-c", SLOWLY.format(code=0)], log)
    said = capsys.readouterr().err.splitlines()
    assert said
    assert said[-1].endswith("go-kube, for 0 min: go: downloading a")
    with pytest.raises(ClusterError, match="ended with 3; the end of"):
        shell.logged([sys.executable, "-c", SLOWLY.format(code=3)], log)
    assert log.read_text() == "go: downloading a\n"


def test_a_short_one_says_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shell.logged([sys.executable, "-c", "print(1)"], tmp_path / "a.log")
    assert capsys.readouterr().err == ""
