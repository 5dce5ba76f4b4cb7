"""What a person meets at the shell: help with an example, flags refused in words, failures that say what to do here."""

import re
import resource
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from finetune_api import RELEASE
from finetune_api.exit_codes import REASON_OF_EXIT_CODE, ExitCode
from finetune_api.reasons import NEXT_STEP, Reason
from finetune_trainer import __main__ as command_line
from finetune_trainer import run
from finetune_trainer.attempt import outcome
from finetune_trainer.errors import ANOTHER_OUTPUT, TrainerError, is_short_of_memory
from finetune_trainer.models import base_place
from finetune_trainer.serving.artifact import open_artifact
from tests.unit.finetune_trainer.jobs import make_job
from tests.unit.finetune_trainer.shortages import OF_THE_MACHINE


def test_help_shows_the_way_from_data_to_an_answering_model(capsys):
    with pytest.raises(SystemExit) as ended:
        command_line.main(["--help"])
    said = capsys.readouterr().out
    assert ended.value.code == 0
    assert [f"finetune-trainer {command}" in said for command in ("cache", "check", "run", "serve")] == [True] * 4


@pytest.mark.parametrize("command", sorted(command_line.COMMANDS))
def test_every_command_has_help_for_each_of_its_flags(command, capsys):
    with pytest.raises(SystemExit) as ended:
        command_line.main([command, "--help"])
    assert ended.value.code == 0
    flags = command_line.parser()._subparsers._group_actions[0].choices[command]._actions
    assert all(flag.help for flag in flags)
    assert command in capsys.readouterr().out


def test_each_example_is_a_command_line_that_is_taken():
    for command, example in command_line.EXAMPLES.items():
        assert command_line.parser().parse_args(example.split()).command == command


def test_files_that_a_shell_has_found_stand_behind_one_flag():
    given = command_line.parser().parse_args(["check", "-f", "a.yaml", "b.yaml", "-f", "jobs", "--manifest-only"])
    assert given.files == [Path("a.yaml"), Path("b.yaml"), Path("jobs")]


def test_the_release_is_told(capsys):
    with pytest.raises(SystemExit) as ended:
        command_line.main(["--version"])
    assert (ended.value.code, capsys.readouterr().out) == (0, f"finetune-trainer {RELEASE}\n")


@pytest.mark.parametrize(("command", "package"), [("run", "numpy"), ("serve", "uvicorn"), ("train", "torch")])
def test_a_small_installation_says_what_a_command_needs_beside_it(command, package, monkeypatch, capsys):
    def absent(_):
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)

    monkeypatch.setattr(command_line, "import_module", absent)
    flags = {"run": ["-f", "job.yaml", "--output", "out"], "serve": ["--model", "x"]}
    assert command_line.main([command, *flags.get(command, [])]) == ExitCode.USAGE
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"`finetune-trainer {command}` needs more than is installed here: {package} is missing" in said
    assert "pip install './trainer_image[full]'" in said


@pytest.mark.parametrize("error", OF_THE_MACHINE.values(), ids=OF_THE_MACHINE)
def test_a_command_that_has_too_little_memory_to_begin_says_so(error, monkeypatch, capsys):
    def short(_):
        raise error

    monkeypatch.setattr(command_line, "import_module", short)
    code = command_line.main(["train"])
    assert REASON_OF_EXIT_CODE[code] == Reason.OUT_OF_MEMORY
    said = capsys.readouterr().err
    assert said.startswith("OutOfMemory: the memory that `finetune-trainer train` may take was not enough (")
    assert said.endswith("Raise the limit (ulimit -v, the container's memory) or end other programs, and try again.\n")


@pytest.mark.parametrize(("limit", "is_so"), [(1 << 40, True), (resource.RLIM_INFINITY, False)])
def test_a_thread_that_does_not_start_lacks_memory_where_that_is_limited(limit, is_so, monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))
    assert is_short_of_memory(RuntimeError("can't start new thread")) is is_so


@pytest.mark.parametrize("error", [ImportError("cannot import name 'x'"), OSError(2, "absent"), RuntimeError("x")])
def test_what_is_no_shortage_is_a_bug(error, monkeypatch):
    monkeypatch.setattr(command_line, "import_module", lambda _: (_ for _ in ()).throw(error))
    with pytest.raises(type(error)) as raised:
        command_line.main(["train"])
    assert raised.value is error


def test_a_module_of_our_own_that_is_missing_is_a_bug(monkeypatch):
    def absent(name):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(command_line, "import_module", absent)
    with pytest.raises(ModuleNotFoundError):
        command_line.main(["train"])


@pytest.mark.parametrize("port", ["99999", "-1", "http", ""])
def test_a_port_that_is_none_is_refused_before_anything_starts(port, capsys):
    with pytest.raises(SystemExit) as ended:
        command_line.main(["serve", "--model", "x", f"--port={port}"])
    assert ended.value.code == ExitCode.USAGE
    assert "is not a port: write 0 to 65535" in capsys.readouterr().err


@pytest.mark.parametrize("line", ["check -f ''", "run -f a.yaml --output ''", "cache a/b --model-cache=''"])
def test_a_place_that_is_empty_is_not_the_folder_that_one_is_in(line, capsys):
    with pytest.raises(SystemExit) as ended:
        command_line.main(shlex.split(line))
    assert ended.value.code == ExitCode.USAGE
    assert "it is empty: name a file or a folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "flag"),
    [
        (["run", "-f", "a.yaml", "--file", "b.yaml", "--output", "o"], "-f/--file"),
        (["run", "-f", "a.yaml", "--output", "o", "--output=o"], "--output"),
        (["serve", "--model", "m", "--port", "8000", "--port", "8001"], "--port"),
        (["push", "m", "--to", "oci://a/b:1", "--to", "hf://a/b"], "--to"),
    ],
)
def test_of_a_flag_that_stands_twice_none_is_left_out_in_silence(line, flag, capsys):
    with pytest.raises(SystemExit) as ended:
        command_line.main(line)
    assert ended.value.code == ExitCode.USAGE
    assert f"argument {flag}: it occurs twice, and takes one value" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("run", "required: -f/--file, --output; for example: finetune-trainer run -f job.yaml --model-cache models"),
        ("push tuned/model", "required: --to; for example: finetune-trainer push tuned/model --to oci://"),
        ("chek -f job.yaml", "; did you mean check?"),
        ("evaluate -f job.yaml", "; did you mean run?"),
        ("chat tuned/model", "; did you mean serve?"),
        ("download org/model", "; did you mean cache?"),
        ("check -f job.yaml --provider openai", "; did you mean openAI?"),
        ("check -f job.yaml --provider azure", "; did you mean azureOpenAI?"),
        ("check job.yaml", "required: -f/--file; did you mean -f job.yaml?"),
        ("check --manifest-only --model-cache c 'my job.yaml'", "; did you mean -f 'my job.yaml'?"),
        ("check -f a.yaml b.yaml --manifest-onyl", "; did you mean --manifest-only instead of --manifest-onyl?"),
        ("run job.yaml --output o", "; did you mean -f job.yaml?"),
        ("run -f a.yaml b.yaml --output o", "unrecognized arguments: b.yaml\n"),
        ("serve tuned/model", "; did you mean --model tuned/model?"),
        ("run -f a --output-dir o", "; did you mean --output instead of --output-dir?"),
        ("serve --model m --modle-cache=x", "; did you mean --model-cache instead of --modle-cache?"),
        ("check -f a --zzz", "unrecognized arguments: --zzz\n"),
        ("check -f a -o json", "unrecognized arguments: -o json; the verdict is printed as JSON without any flag\n"),
        ("check -f a --output=json", "arguments: --output=json; the verdict is printed as JSON without any flag\n"),
        ("check -f a --json", "unrecognized arguments: --json; the verdict is printed as JSON without any flag\n"),
        ("check -f a -o=json b", "; the verdict is printed as JSON without any flag\n"),
        ("check -f a -q b", "unrecognized arguments: -q b\n"),
        ("run -f a -o tuned", "; did you mean --output instead of -o?\n"),
        ("run -f a -output tuned", "; did you mean --output instead of -output?\n"),
        ("serve -m tuned/model", "required: --model; for example: finetune-trainer serve"),
        ("serve -p 8000 --model m", "; did you mean --port instead of -p?\n"),
        ("push tuned/model -t oci://a/b:1", "; did you mean --to instead of -t?\n"),
        ("push a b --to oci://x/y:1", "finetune-trainer push: error: unrecognized arguments: b\n"),
    ],
)
def test_a_line_that_is_not_understood_says_what_to_type(line, says, capsys):
    with pytest.raises(SystemExit) as ended:
        command_line.main(shlex.split(line))
    assert ended.value.code == ExitCode.USAGE
    assert says in capsys.readouterr().err


def test_a_command_line_may_be_read_again():
    parser = command_line.parser()
    for _ in range(2):
        assert [
            str(path) for path in parser.parse_args(["check", "-f", "a", "-f", "b", "--provider", "openAI"]).files
        ] == [
            "a",
            "b",
        ]


@pytest.mark.parametrize(
    ("size", "says"), [("24", "lacks its unit"), ("24GB", "is not a size"), ("0Gi", "is not a size")]
)
def test_a_size_of_memory_needs_its_unit(size, says, capsys):
    with pytest.raises(SystemExit) as ended:
        command_line.main(["check", "-f", "job.yaml", "--gpu-memory", size])
    assert ended.value.code == ExitCode.USAGE
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("message", "step", "line"),
    [
        ("no such field", "Correct it.", "SpecInvalid: no such field. Correct it."),
        ("did you mean epochs?", "Correct it.", "SpecInvalid: did you mean epochs? Correct it."),
        ("two\nlines.", None, "SpecInvalid: two lines."),
    ],
)
def test_a_failure_is_one_line(message, step, line):
    assert outcome.sentence(Reason.SPEC_INVALID, message, step) == line


def test_next_steps_at_a_shell_do_not_speak_of_a_cluster():
    words = ("spec.retryNonce", "namespace", "under a new name", "kubectl", "Secret", "the connection")
    reasons = {*run._NEXT_STEP_HERE, *(Reason(error.reason) for error in every_error())}
    of_providers = {Reason.BUDGET_EXCEEDED, Reason.PRICE_UNKNOWN, Reason.PROVIDER_REFUSED}
    for reason in reasons - {Reason.INTERRUPTED} - of_providers:  # `run` trains here
        said = outcome.with_next_step(TrainerError(reason, "x"), run._NEXT_STEP_HERE).next_step
        assert said
        assert not [word for word in words if word in said], reason


@pytest.mark.parametrize(
    ("step", "here"),
    [
        ("Use fewer rows, and apply the job under a new name.", "Use fewer rows, and run the same command again."),
        ("Apply the job under a new name without it.", "Run the same command again without it."),
        (ANOTHER_OUTPUT, ANOTHER_OUTPUT),  # it tells both apart by itself
    ],
)
def test_nobody_at_a_shell_applies_a_job_under_a_new_name(step, here):
    error = TrainerError(Reason.SPEC_INVALID, "x", step)
    assert outcome.with_next_step(error, run._NEXT_STEP_HERE).next_step == here


def test_no_next_step_speaks_of_a_cluster_to_those_who_have_none():
    """What stores and ConfigMaps say is for pods alone."""
    package = Path(run.__file__).parent
    for file in sorted(package.rglob("*.py")):
        if file.name not in ("store.py", "code_files.py"):
            text = re.sub(r'"\s+f?"', "", file.read_text())
            said = re.findall(r".{0,80}(?:retryNonce|\ba job under a new name)", text)
            assert not [one for one in said if "in a cluster" not in one], file


def every_error():
    from finetune_api.exit_codes import REASON_OF_EXIT_CODE

    return [TrainerError(reason, "x") for reason in REASON_OF_EXIT_CODE.values()]


def test_a_next_step_that_knows_better_stays():
    error = TrainerError(Reason.SPEC_INVALID, "x", "Write this instead.")
    assert outcome.with_next_step(error, run._NEXT_STEP_HERE) is error
    assert NEXT_STEP[Reason.SPEC_INVALID] != "Write this instead."


def test_what_stands_behind_the_general_step_stays_behind_the_one_that_is_said_here():
    error = TrainerError(Reason.DATASET_INVALID, "x", f"{NEXT_STEP[Reason.DATASET_INVALID]} To leave it out: do this.")
    here = run._NEXT_STEP_HERE[Reason.DATASET_INVALID]
    assert outcome.with_next_step(error, run._NEXT_STEP_HERE).next_step == f"{here} To leave it out: do this."


@pytest.mark.parametrize(
    ("has_cache", "said", "step"),
    [
        (
            True,
            "not in the model cache; it has test/tiny-llama; and it could not be fetched",
            "into the model cache with",
        ),
        (False, "test/tiny-lama could not be fetched", "name that: huggingFace.modelCache of the connection"),
    ],
)
def test_a_hub_that_is_away_is_told_together_with_the_cache_that_lacks_the_model(
    tiny_model, tmp_path, monkeypatch, has_cache, said, step
):
    caught = located_without_a_hub(monkeypatch, tiny_model, tmp_path, has_cache=has_cache)
    assert caught.reason == Reason.STORE_UNAVAILABLE
    assert said in caught.message
    assert "`finetune-trainer cache`" in caught.next_step
    assert step in caught.next_step


@pytest.mark.parametrize("has_cache", [True, False])
def test_what_helps_against_the_cause_is_told_before_any_cache(tiny_model, tmp_path, monkeypatch, has_cache):
    caught = located_without_a_hub(monkeypatch, tiny_model, tmp_path, "Trust it.", has_cache=has_cache)
    assert caught.next_step == "Trust it."


def located_without_a_hub(monkeypatch, tiny_model, tmp_path, step=None, *, has_cache):
    def away(name):
        raise TrainerError(Reason.STORE_UNAVAILABLE, f"{name} could not be fetched", step)

    monkeypatch.setattr(base_place, "fetch", away)
    job = make_job(tmp_path, tiny_model, baseModel="test/tiny-lama").model_copy(update={"air_gapped": False})
    with pytest.raises(TrainerError) as caught:
        base_place.locate(job if has_cache else job.model_copy(update={"model_cache": None}))
    return caught.value


def test_serving_the_output_folder_names_the_model_in_it(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "manifest.json").write_text("{}")
    with pytest.raises(TrainerError) as caught:
        open_artifact(tmp_path, None)
    assert caught.value.next_step == f"Serve {tmp_path / 'model'}: that is the tuned model."


def test_serving_an_adapter_without_a_cache_names_the_flags_for_its_base(adapter_of_nowhere):
    with pytest.raises(TrainerError) as caught:
        open_artifact(adapter_of_nowhere, None)
    assert caught.value.reason == Reason.MODEL_NOT_IN_CACHE
    assert "--model-cache" in caught.value.next_step
    assert "--allow-hub" in caught.value.next_step


@pytest.fixture
def adapter_of_nowhere(tmp_path):
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "org/nowhere"}')
    (tmp_path / "adapter_model.safetensors").touch()
    return tmp_path


def test_check_says_once_which_file_cannot_be_read(tmp_path):
    command = [sys.executable, "-m", "finetune_trainer", "check", "-f", tmp_path / "none.yaml"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == ExitCode.SPEC_INVALID
    assert done.stderr.splitlines()[0] == "none.yaml cannot be read: No such file or directory"


def test_a_verdict_that_nobody_can_read_is_no_crash(tmp_path):
    manifest = tmp_path / "job.yaml"
    manifest.write_text("kind: FineTuneJob\n")
    command = f"{sys.executable} -m finetune_trainer check -f {manifest}"
    for redirection, code in ((">/dev/full", 73), (">&-", 73), ("2>&- >/dev/null", 78), ("2>/dev/full | true", 0)):
        done = subprocess.run(["sh", "-c", f"{command} {redirection}"], capture_output=True, text=True, check=False)
        assert done.returncode == code, redirection
        assert "Traceback" not in done.stderr


STOPPED_AT_ONCE = """
import os, signal, sys
from finetune_trainer import __main__ as command
imported = command.import_module

def import_module(name):
    if name == f"finetune_trainer.{sys.argv[1]}":
        os.kill(os.getpid(), signal.SIGTERM)
    return imported(name)

command.import_module = import_module
sys.exit(command.main())
"""


@pytest.mark.parametrize("name", ["run", "train", "prepare", "measure", "serve", "prune"])
def test_a_signal_while_a_command_is_imported_ends_it_in_its_words(name, tmp_path):
    """As a container's first process it would get none without a handler of its own, and go on until it is killed."""
    flags = {
        "run": ["-f", "job.yaml", "--output", "out"],
        "serve": ["--model", "model"],
        "prune": ["--root", "/x", "/x/y"],
    }
    line = [sys.executable, "-c", STOPPED_AT_ONCE, name, *flags.get(name, [])]
    done = subprocess.run(line, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (ExitCode.INTERRUPTED, "", "Interrupted.\n")
