"""`finetune-operator` alone, as somebody types it who looks for help: no second operator begins to work."""

import os
from unittest.mock import Mock

import pytest

from finetune_operator import __main__ as program


def forget_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("FINETUNE_")]:
        monkeypatch.delenv(name)


async def must_not_run(*_: object) -> int:
    raise AssertionError("an operator has begun to work")


def test_the_bare_name_says_what_is_missing(monkeypatch, capsys):
    forget_settings(monkeypatch)
    monkeypatch.setattr(program, "_main", must_not_run)
    with pytest.raises(SystemExit) as ended:
        program.main([])
    said = capsys.readouterr().err
    assert ended.value.code == program.MISCONFIGURED
    assert "name a command" in said
    assert "FINETUNE_NAMESPACE" in said
    assert "{ask}" in said or "[COMMAND]" in said


@pytest.mark.parametrize("name", ["FINETUNE_NAMESPACE", "FINETUNE_KUBECONFIG"])
def test_with_a_setting_it_is_the_operator(monkeypatch, name):
    forget_settings(monkeypatch)
    monkeypatch.setenv(name, "somewhere")

    async def ran(_: object) -> int:
        return 0

    monkeypatch.setattr(program, "_main", ran)
    monkeypatch.setattr(program.logs, "configure", lambda _: None)
    monkeypatch.setattr(program, "gc", Mock())  # it would walk over all that the tests before have left
    assert program.main([]) == 0


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("team-a/mood", "'team-a/mood' is two names, not one: write mood -n team-a"),
        ("team_a/mood", "'team_a/mood' is not a name: write a-z, 0-9, '-' and '.' only"),
        ("md/mood", "'md/mood' is a name behind its kind: write mood alone"),
        ("modeldeployment.finetune.dev/mood", "a name behind its kind: write mood alone"),
    ],
)
def test_a_namespaced_name_is_answered_with_the_flag_for_the_namespace(
    capsys: pytest.CaptureFixture[str], model: str, said: str
) -> None:
    with pytest.raises(SystemExit):
        program.main(["ask", model, "hello"])
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("ask mood hello --temprature 0", "did you mean --temperature instead of --temprature?"),
        ("ask mood hello --max_tokens=5", "did you mean --max-tokens instead of --max_tokens?"),
        ("ask mood hello --verbose", "unrecognized arguments: --verbose; there are --help, --namespace, --system"),
        ("ask mood what a day", "unrecognized arguments: a day; write a text of several words in quotes"),
        ("aks mood hello", "did you mean ask?"),
        ("serve", "invalid choice: 'serve' (choose from"),
    ],
)
def test_a_misspelt_command_line_is_answered_with_what_was_meant(
    capsys: pytest.CaptureFixture[str], line: str, said: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        program.main(line.split())
    assert ended.value.code == program.MISCONFIGURED
    assert said in capsys.readouterr().err
