"""`finetune-trainer check`: the verdict, its exit code, and what it takes to get there."""

import gzip
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from finetune_api.exit_codes import ExitCode
from finetune_api.verdict import DatasetVerdict
from finetune_trainer.__main__ import main
from tests.assets.tiny_model import NAME as TINY

GOOD = '{"prompt": "What colour is the sky?", "completion": "blue"}\n{"prompt": "And grass?", "completion": "green"}\n'


class Checked:
    """One call of the command: exit code, verdict, and what it said to people."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code = code
        told = json.loads(out)
        self.memory = told.pop("memory", [])
        self.verdict = DatasetVerdict.model_validate(told)
        self.err = err


@pytest.fixture
def check(tmp_path, capsys):
    """Write files and a manifest that names them, and check it."""

    def run(*flags, spec=None, **splits) -> Checked:
        dataset = {}
        for split, (name, data) in splits.items():
            path = tmp_path / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(data.encode() if isinstance(data, str) else data)
            dataset[split] = {"uri": f"file://{path}"}
        manifest = {
            "apiVersion": "finetune.dev/v1alpha1",
            "kind": "FineTuneJob",
            "metadata": {"name": "job"},
            "spec": {
                "connectionRef": {"name": "local"},
                "baseModel": TINY,
                "modelRef": {"name": "model"},
                "dataset": dataset | (spec or {}).pop("dataset", {}),
                **(spec or {}),
            },
        }
        (tmp_path / "job.json").write_text(json.dumps(manifest))
        code = main(["check", "-f", str(tmp_path / "job.json"), *map(str, flags)])
        return Checked(code, *capsys.readouterr())

    return run


def test_a_good_dataset_is_valid(check):
    result = check(train=("train.jsonl", GOOD), test=("test.csv", "prompt,completion\nIs it?,yes\n"))
    assert result.code == ExitCode.OK
    verdict = result.verdict
    assert (verdict.valid, verdict.reason, verdict.next_step) == (True, "Valid", None)
    assert verdict.message == "Every row can be used: train.jsonl has 2 rows, test.csv has 1 row"
    assert (verdict.train.rows, verdict.train.format, verdict.train.bytes) == (2, "JSONLines", len(GOOD))
    assert verdict.train.sha256 == hashlib.sha256(GOOD.encode()).hexdigest()
    assert verdict.test.format == "CSV"
    assert verdict.validation is None
    assert verdict.message in result.err


def test_bad_rows_are_named_as_the_design_shows(check):
    lines = [f'{{"prompt": "p{n}", "completion": "c"}}' for n in range(1, 1201)]
    lines[16] = '{"prompt": "p", "completion": " "}'
    lines[400] = '{"completion": "c"}'
    result = check(train=("train.jsonl", "\n".join(lines)))
    assert result.code == ExitCode.DATASET_INVALID
    assert result.verdict.message == (
        "train.jsonl: 2 of 1,200 rows cannot be used: line 17: completion is empty; line 401: prompt is missing"
    )
    assert [(p.line, p.field, p.problem) for p in result.verdict.train.problems] == [
        (17, "completion", "Empty"),
        (401, "prompt", "Missing"),
    ]
    assert "spec.dataset.columns" in result.verdict.next_step
    assert "finetune-trainer check" in result.verdict.next_step


def test_every_bad_row_is_counted_and_the_first_twenty_named(check):
    bad = "".join(f'{{"prompt": "p{n}"}}\n' for n in range(57))
    result = check(train=("train.jsonl", GOOD + bad), validation=("val.jsonl", "nope\n" + GOOD))
    train = result.verdict.train
    assert (train.rows, train.bad_rows, len(train.problems)) == (59, 57, 20)
    assert [problem.line for problem in train.problems] == list(range(3, 23))
    assert "57 of 59 rows cannot be used" in result.verdict.message
    assert "and 52 more" in result.verdict.message
    assert "val.jsonl: 1 of 3 rows cannot be used: line 1: " in result.verdict.message


def test_text_of_rows_is_never_quoted(check):
    secret = "Secret-4711"
    rows = f'{{"prompt": "{secret}"}}\n{{"prompt": "{secret}", "completion": 3}}\n{secret}\n["{secret}"]\n'
    headerless = f'"{secret} is here, and a long sentence that is data",b\nc,"{secret}"\n'
    result = check(train=("train.jsonl", rows), test=("test.csv", headerless))
    assert result.code == ExitCode.DATASET_INVALID
    assert secret not in result.verdict.model_dump_json()
    assert secret not in result.err


@pytest.mark.parametrize(
    ("name", "data", "columns", "said"),
    [
        ("t.csv", "text,label\na,b\n", {}, "its 1 row has no column 'prompt' or 'messages'; its columns are"),
        ("t.jsonl", '{"text":"a"}\n{"label":"b"}', {}, "its columns are text, label"),
        ("t.json", '[{"text":"a"}]', {}, "its columns are text"),
        ("t.csv", "prompt,label\na,b\nc,d\n", {}, "2 rows has a column 'completion'; its columns are prompt, label"),
        ("t.csv", "prompt,completion\na,b\n", {"prompt": "text"}, "its 1 row has no column 'text' or 'messages'"),
        ("t.csv", "text;label\na;b\n", {}, "its columns are text, label"),
        ("t.tsv", "text\tlabel\na\tb\n", {}, "its columns are text, label"),
        ("t.csv", "Is this a header? No!,certainly not (?)\na,b\n", {}, "look like data: the header may be missing"),
    ],
)  # fmt: skip
def test_an_absent_column_is_said_once_with_the_columns_that_are_there(check, name, data, columns, said):
    result = check(train=(name, data), spec={"dataset": {"columns": columns}})
    assert result.code == ExitCode.DATASET_INVALID
    assert said in result.verdict.message
    assert "line" not in result.verdict.message
    assert result.verdict.train.bad_rows == result.verdict.train.rows


@pytest.mark.parametrize(
    ("name", "data", "columns", "step"),
    [
        ("t.jsonl", '{"Prompt":"a","answer":"b"}', {}, "{completion: answer}"),
        ("t.jsonl", '{"promt":"a","completion":"b"}', {}, "{prompt: promt}"),
        ("t.jsonl", '{"prompt":"a","completions":"b"}', {}, "{completion: completions}"),
        ("t.jsonl", '{"question":"a","answer":"b"}', {}, "{prompt: question, completion: answer}"),
        ("t.jsonl", '{"instruction":"a","history":[],"output":"b"}', {}, "{prompt: instruction, completion: output}"),
        ("t.jsonl", '{"text":"a"}', {}, "{prompt: text, completion: NAME}"),
        ("t.jsonl", '{"prompt":"a"}', {}, "{completion: NAME}"),
        ("t.jsonl", '{"conversation":[]}', {}, "{messages: conversation}"),
        (
            "t.jsonl",
            '{"text":"a","label":"b"}',
            {"prompt": "txt", "completion": "lable"},
            "{prompt: text, completion: label}",
        ),
        ("t.csv", "my promt,completion\na,b\n", {"prompt": "my prompt"}, '{prompt: "my promt"}'),
        ("t.jsonl", '{"foo":"a","bar":"b"}', {}, "{prompt: NAME, completion: NAME}"),
        ("t.csv", "question;answer\na;b\n", {}, "{prompt: question, completion: answer}"),
        ("t.jsonl", '{"id":1,"data":{"x":"a"}}', {}, "`jq -c '{prompt: .NAME.NAME, completion: .NAME.NAME}' FILE"),
        ("t.json", '[{"prompt":"a","fields":{"x":"a"}}]', {}, "`jq -c '.[] | {completion: .NAME.NAME}' FILE"),
    ],
)
def test_the_next_step_names_the_columns_that_were_probably_meant(check, name, data, columns, step):
    assert step in check(train=(name, data), spec={"dataset": {"columns": columns}}).verdict.next_step


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("Ada Lovelace,positive", "the names of its columns look like data: the header may be missing"),
        ("Ada Lovelace,review", "its columns are review and 1 more"),  # a usual name, which may be a value too
        ("prompt,sentiment class", "its columns are prompt, sentiment class"),  # a header beyond doubt
    ],
)
def test_the_first_line_of_a_csv_is_not_repeated_where_it_may_be_data(check, header, said):
    result = check(train=("t.csv", f"{header}\na,b\n"))
    assert said in result.verdict.message
    assert "Ada" not in result.verdict.model_dump_json() + result.err


def test_names_are_not_repeated_where_there_are_so_many_that_they_may_be_data(check):
    rows = "".join(json.dumps({f"Ada {number}": "a", "label": "b"}) + "\n" for number in range(70))
    result = check(train=("t.jsonl", rows))
    assert "its columns are label and 70 more" in result.verdict.message
    assert "Ada" not in result.verdict.model_dump_json() + result.err


def test_a_file_of_which_no_line_is_json_is_asked_for_its_format(check):
    result = check(train=("t.jsonl", "prompt,completion\na,b\n"))
    assert result.verdict.next_step.startswith("The file was read as JSONLines: set spec.dataset.train.format")


def test_a_system_column_that_was_named_and_is_absent_is_warned_of(check):
    data = '{"prompt": "a", "completion": "b", "instructions": "c"}\n'
    result = check(train=("t.jsonl", data), spec={"dataset": {"columns": {"system": "instruction"}}})
    assert result.code == ExitCode.OK
    assert "t.jsonl: no row has a column 'instruction' (columns.system); did you mean instructions?" in (
        result.verdict.warnings
    )


def test_a_row_of_a_json_array_is_named_by_its_line_too(check):
    rows = [{"prompt": "a", "completion": "b"}, {"prompt": "", "completion": "b"}]
    result = check(train=("t.json", json.dumps(rows, indent=2)), test=("v.json", json.dumps(rows[:1] * 2)))
    (problem,) = result.verdict.train.problems
    assert (problem.line, problem.row, problem.message) == (6, 1, "row 1 (line 6): prompt is empty")
    assert result.verdict.shared_rows[0].examples == ["v.json row 0 (line 1)", "v.json row 1 (line 1)"]


@pytest.mark.parametrize(
    ("name", "data", "code", "said"),
    [
        ("t.jsonl", "", ExitCode.DATASET_INVALID, "t.jsonl is empty"),
        ("t.csv", "", ExitCode.DATASET_INVALID, "t.csv is empty"),
        ("t.json", "", ExitCode.DATASET_INVALID, "t.json is empty"),
        ("t.csv", "prompt,completion\n", ExitCode.DATASET_INVALID, "t.csv has a header but no rows"),
        ("t.jsonl", "\n\n", ExitCode.DATASET_INVALID, "t.jsonl has no rows"),
        ("t.json", "[]", ExitCode.DATASET_INVALID, "t.json has no rows"),
        (
            "t.jsonl.gz",
            gzip.compress(GOOD.encode(), mtime=0)[:-9],
            ExitCode.DATASET_INVALID,
            "gzip compression breaks off",
        ),
        ("t.parquet", "nothing", ExitCode.DATASET_INVALID, "is no Parquet file"),
        ("t.txt", GOOD, ExitCode.SPEC_INVALID, "the ending of t.txt does not tell its format"),
    ],
)
def test_a_file_that_cannot_be_used_gets_its_own_sentence(check, name, data, code, said):
    result = check(train=(name, data))
    assert result.code == code
    assert said in result.verdict.message
    assert result.verdict.next_step
    assert "Traceback" not in result.err


def test_a_file_that_is_not_there(check, tmp_path):
    result = check(spec={"dataset": {"train": {"uri": f"file://{tmp_path}/none.jsonl"}}})
    assert (result.code, result.verdict.reason) == (ExitCode.DATASET_NOT_FOUND, "DatasetNotFound")
    assert f"none.jsonl is not in {tmp_path}" in result.verdict.message


@pytest.mark.parametrize(("written", "found"), [("Rows.jsonl", True), ("rows.json", True), ("other.csv", False)])
def test_a_file_that_is_not_there_is_answered_with_the_one_that_is(check, tmp_path, written, found):
    (tmp_path / "rows.jsonl").write_text(GOOD)
    result = check(spec={"dataset": {"train": {"uri": f"file://{tmp_path}/{written}"}}})
    assert result.code == ExitCode.DATASET_NOT_FOUND
    assert ("; there is rows.jsonl" in result.verdict.message) == found
    assert "file:///FOLDER/FILE" in result.verdict.next_step


@pytest.mark.parametrize(
    ("uri", "place"), [("pvc://data/a/rows.jsonl", "pvc://data"), ("configmap://c/k", "configmap://c")]
)
def test_a_manifest_of_the_cluster_is_told_how_to_name_its_file_on_this_machine(check, uri, place):
    result = check(spec={"dataset": {"train": {"uri": uri}}})
    assert result.code == ExitCode.DATASET_NOT_FOUND
    assert f"{place} is of the job's namespace on a cluster, and not mounted here" in result.verdict.message
    assert "file:///FOLDER/FILE" in result.verdict.next_step


def test_a_store_whose_library_is_not_installed_names_what_to_install(check, monkeypatch):
    def absent(*_, **__):
        raise ImportError("Install s3fs to access S3")  # as fsspec raises it: without the module's name

    monkeypatch.setattr("fsspec.core.url_to_fs", absent)
    result = check(spec={"dataset": {"train": {"uri": "s3://bucket/rows.jsonl"}}})
    assert result.code == ExitCode.SPEC_INVALID
    assert result.verdict.message == "rows.jsonl: s3:// cannot be read here: what reads it is not installed"
    assert "./trainer_image[stores]" in result.verdict.next_step


@pytest.mark.parametrize(("status", "reason"), [(500, "StoreUnavailable"), (403, "AccessDenied")])
def test_the_next_step_at_a_shell_speaks_of_the_shell(check, monkeypatch, status, reason):
    def refuses(*_, **__):
        error = OSError("no")
        error.status = status
        raise error

    monkeypatch.setattr("fsspec.core.url_to_fs", refuses)
    result = check(spec={"dataset": {"train": {"uri": "https://example.com/rows.jsonl"}}})
    assert result.verdict.reason == reason
    assert not [word for word in ("retryNonce", "Secret") if word in result.verdict.next_step]


def test_the_uri_of_a_local_file_is_percent_decoded(check, tmp_path):
    path = tmp_path / "a b#ü?.jsonl"
    path.write_text(GOOD)
    assert check(spec={"dataset": {"train": {"uri": path.as_uri()}}}).code == ExitCode.OK


def test_a_pipe_is_not_waited_for(check, tmp_path):
    os.mkfifo(tmp_path / "rows.jsonl")
    result = check(spec={"dataset": {"train": {"uri": f"file://{tmp_path}/rows.jsonl"}}})
    assert result.code == ExitCode.DATASET_NOT_FOUND
    assert "rows.jsonl is a pipe or a device, not a file" in result.verdict.message


@pytest.mark.parametrize("name", ["loop.jsonl", "n" * 300 + ".jsonl", "gone.jsonl"])
def test_names_that_lead_nowhere_are_not_tried_again(check, tmp_path, name):
    (tmp_path / "loop.jsonl").symlink_to(tmp_path / "loop.jsonl")
    (tmp_path / "gone.jsonl").symlink_to(tmp_path / "nowhere")
    result = check(spec={"dataset": {"train": {"uri": f"file://{tmp_path}/{name}"}}})
    assert result.code == ExitCode.DATASET_NOT_FOUND
    assert f"there is {name}" not in result.verdict.message


def test_a_folder_is_no_file(check, tmp_path):
    for name in ("rows.jsonl", "rows"):
        (tmp_path / name).mkdir()
        result = check(spec={"dataset": {"train": {"uri": f"file://{tmp_path}/{name}"}}})
        assert result.code == ExitCode.DATASET_NOT_FOUND
        assert "is a folder, not a file" in result.verdict.message
        assert "Several become one by `cat`" in result.verdict.next_step


def test_a_pattern_is_no_file(check, tmp_path):
    (tmp_path / "part-1.jsonl").write_text(GOOD)
    result = check(spec={"dataset": {"train": {"uri": f"file://{tmp_path}/part-*.jsonl"}}})
    assert result.code == ExitCode.DATASET_NOT_FOUND
    assert result.verdict.next_step.startswith("Patterns are not read as such. Name one file of rows in the uri.")


def test_an_evaluation_without_a_test_set_is_warned_of(check):
    asked = {"evaluation": {"metrics": ["chrF"]}}
    ignored = "spec.evaluation has no effect: without spec.dataset.test nothing is measured"
    assert ignored in check(spec=dict(asked), train=("t.jsonl", GOOD)).verdict.warnings
    assert ignored not in check(spec=dict(asked), train=("t.jsonl", GOOD), test=("u.jsonl", GOOD)).verdict.warnings
    filled_in = {"evaluation": {"metrics": ["exactMatch"], "baselines": [{"zeroShot": {}}]}}
    assert ignored not in check(spec=filled_in, train=("t.jsonl", GOOD)).verdict.warnings


def test_duplicates_and_shared_rows_are_warnings(check):
    result = check(train=("train.jsonl", GOOD + GOOD), test=("test.csv", "prompt,completion\na,b\nAnd grass?,green\n"))
    assert result.code == ExitCode.OK
    assert result.verdict.train.duplicate_rows == 2
    (shared,) = result.verdict.shared_rows
    assert (shared.splits, shared.rows, shared.examples) == (["train", "test"], 1, ["test.csv line 3"])
    assert "train.jsonl: 2 rows exactly like an earlier row" in result.verdict.warnings
    assert "test.csv: 1 row also in train.jsonl (the first: test.csv line 3)" not in result.verdict.warnings
    assert "test.csv: 1 row also in train.jsonl (the first: line 3)" in result.verdict.warnings


def test_files_that_are_called_alike_are_told_apart_by_their_splits(check):
    wrong = '{"prompt": "a", "completion": ""}\n'
    result = check(train=("train/rows.jsonl", GOOD), validation=("val/rows.jsonl", GOOD), test=("test/set.jsonl", GOOD))
    assert "rows.jsonl (train) has 2 rows, rows.jsonl (validation) has 2 rows, set.jsonl has" in result.verdict.message
    shared = "rows.jsonl (validation): 2 rows also in rows.jsonl (train) (the first: line 1)"
    assert shared in result.verdict.warnings
    result = check(train=("train/rows.jsonl", GOOD), validation=("val/rows.jsonl", wrong))
    assert result.verdict.message.startswith("rows.jsonl (validation): 1 of 1 row cannot be used: line 1")


def test_without_the_model_there_are_no_counts_and_it_says_so(check, tmp_path):
    for flags, why in (((), "no model cache was given"), (("--model-cache", tmp_path), f"{TINY} is not in the model")):
        result = check(*flags, train=("train.jsonl", GOOD))
        assert result.verdict.train.tokens is None
        assert [w for w in result.verdict.warnings if w.startswith(f"tokens were not counted: {why}")]


def test_tokens_are_those_that_training_will_see(check, tiny_model):
    from transformers import AutoTokenizer

    result = check("--model-cache", tiny_model, train=("train.jsonl", GOOD))
    tokenizer = AutoTokenizer.from_pretrained(tiny_model / TINY)
    lengths, answers = [], []
    for text in GOOD.splitlines():
        row = json.loads(text)
        prompt = [{"role": "user", "content": row["prompt"]}]
        whole = [*prompt, {"role": "assistant", "content": row["completion"]}]
        ids = tokenizer.apply_chat_template(whole, return_dict=False)
        while ids[-1] != tokenizer.eos_token_id:
            ids.pop()
        lengths.append(len(ids))
        asked = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_dict=False)
        answers.append(len(ids) - len(asked))
    train = result.verdict.train
    assert (train.tokens, train.longest_row, train.completion_tokens) == (sum(lengths), max(lengths), sum(answers))
    assert train.truncated_rows == 0
    assert result.verdict.message.endswith(f"; {sum(lengths)} tokens")


def test_rows_over_the_length_limit_are_warned_of(check, tiny_model):
    rows = GOOD + json.dumps({"prompt": "sky " * 200, "completion": "blue"}) + "\n"
    rows += json.dumps({"prompt": "sky", "completion": "blue " * 200}) + "\n"
    result = check(
        "--model-cache", tiny_model, train=("t.jsonl", rows), spec={"hyperparameters": {"maxSequenceLength": 64}}
    )
    assert result.code == ExitCode.OK
    assert result.verdict.train.truncated_rows == 2
    assert "t.jsonl: 2 rows longer than maxSequenceLength 64; the end is cut" in result.verdict.warnings
    assert any("1 row without any token of the completion" in w and "line 3" in w for w in result.verdict.warnings)


def test_a_dataset_with_no_answer_left_is_invalid(check, tiny_model):
    result = check(
        "--model-cache", tiny_model, train=("t.jsonl", GOOD), spec={"hyperparameters": {"maxSequenceLength": 8}}
    )
    assert result.code == ExitCode.DATASET_INVALID
    assert "no row has a token of its completion within maxSequenceLength 8" in result.verdict.message
    assert "maxSequenceLength" in result.verdict.next_step


def test_a_broken_tokenizer_leaves_the_check_without_counts(check, tmp_path):
    (tmp_path / TINY).mkdir(parents=True)
    (tmp_path / TINY / "config.json").write_text("{}")
    result = check("--model-cache", tmp_path, train=("train.jsonl", GOOD))
    assert result.code == ExitCode.OK
    assert "tokens were not counted: the base model has no tokenizer.json" in result.verdict.warnings


def test_a_wrong_manifest_is_a_verdict_too(tmp_path, capsys):
    (tmp_path / "job.yaml").write_text("kind: FineTuneJob\nspec: {basemodel: x}\n")
    code = main(["check", "-f", str(tmp_path / "job.yaml")])
    verdict = DatasetVerdict.model_validate_json(capsys.readouterr().out)
    assert (code, verdict.reason) == (ExitCode.SPEC_INVALID, "SpecInvalid")
    assert "spec.basemodel: no such field; did you mean baseModel?" in verdict.message


def test_each_job_of_a_file_gets_its_verdict_and_the_worst_its_exit_code(tmp_path, capsys):
    (tmp_path / "good.jsonl").write_text(GOOD)
    manifests = [manifest_of(tmp_path, tmp_path / name).read_text() for name in ("good.jsonl", "none.jsonl")]
    (tmp_path / "jobs.yaml").write_text("\n---\n".join(manifests))
    assert main(["check", "-f", str(tmp_path / "jobs.yaml")]) == ExitCode.DATASET_NOT_FOUND
    found, out = [], capsys.readouterr().out
    while out.strip():
        verdict, end = json.JSONDecoder().raw_decode(out)
        found.append(verdict["reason"])
        out = out[end:].lstrip()
    assert found == ["Valid", "DatasetNotFound"]


def test_hubs_are_not_asked_offline(check, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    result = check(spec={"dataset": {"train": {"uri": "hf://datasets/owner/name/train.jsonl"}}})
    assert result.code == ExitCode.SPEC_INVALID
    assert "air-gapped" in result.verdict.message


def test_a_verdict_of_the_worst_data_fits_its_schema(check):
    bad = "".join(json.dumps({"prompt": "p", "completion": n, "x" * 3000: 1}) + "\n" for n in range(500))
    columns = {"prompt": "c" * 128, "completion": "d" * 128}
    names = {split: (f"{split}-{'n' * 200}.jsonl", bad) for split in ("train", "validation", "test")}
    result = check(**names, spec={"dataset": {"columns": columns}})
    assert len(result.verdict.model_dump_json(by_alias=True)) < 64 * 1024
    assert len(result.verdict.message) <= 4096


def manifest_of(folder: Path, data: Path) -> Path:
    manifest = {
        "apiVersion": "finetune.dev/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": "job"},
        "spec": {
            "connectionRef": {"name": "c"},
            "baseModel": "m",
            "modelRef": {"name": "m"},
            "dataset": {"train": {"uri": f"file://{data}"}},
        },
    }
    (folder / "job.json").write_text(json.dumps(manifest))
    return folder / "job.json"


def test_check_imports_neither_torch_nor_transformers(tmp_path, tiny_model):
    (tmp_path / "t.jsonl").write_text(GOOD)
    program = (
        "import sys; from finetune_trainer.__main__ import main; code = main(sys.argv[1:]);"
        "heavy = {'torch', 'transformers', 'peft', 'accelerate', 'datasets', 'pandas'} & set(sys.modules);"
        "assert not heavy, heavy; sys.exit(code)"
    )
    flags = ["check", "-f", str(manifest_of(tmp_path, tmp_path / "t.jsonl")), "--model-cache", str(tiny_model)]
    done = subprocess.run([sys.executable, "-c", program, *flags], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


_LIMIT_MIB = 128


# The kernel's high-water mark of the program itself: that of rusage has the memory of whoever started it in it.
_LIMITED = f"""
import re, resource, sys
from pathlib import Path
resource.setrlimit(resource.RLIMIT_DATA, ({_LIMIT_MIB} << 20, {_LIMIT_MIB} << 20))
from finetune_trainer.__main__ import main
code = main(sys.argv[2:])
peak = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]
Path(sys.argv[1]).write_text(peak)
sys.exit(code)
"""


def _write_lines(path: Path) -> int:
    row = b'{"prompt": "%07d ' + b"x" * 2000 + b'", "completion": "' + b"y" * 2000 + b'"}\n'
    with path.open("wb") as file:
        for start in range(0, 120_000, 1000):
            file.write(b"".join(row % n for n in range(start, start + 1000)))
    return 120_000


def _write_array(path: Path) -> int:
    row = b'%s{"prompt": "%07d ' + b"x" * 20_000 + b'", "completion": "' + b"y" * 20_000 + b'"}\n'
    with path.open("wb") as file:
        for n in range(8000):
            file.write(row % (b"," if n else b"[", n))
        file.write(b"]")
    return 8000


def _write_one_line(path: Path) -> int:
    """A line that never ends: no row at all, where a reader by lines would hold the whole file."""
    with path.open("wb") as file:
        for _ in range(300):
            file.write(b"x" * (1 << 20))
    return 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "write", "code"),
    [
        ("big.jsonl", _write_lines, ExitCode.OK),
        ("big.json", _write_array, ExitCode.OK),
        ("line.jsonl", _write_one_line, ExitCode.DATASET_INVALID),
        ("line.csv", _write_one_line, ExitCode.DATASET_INVALID),
    ],
)
def test_memory_does_not_grow_with_the_file(tmp_path, name, write, code):
    """The child may use 128 MiB of heap; the files are 300 MiB and more."""
    data = tmp_path / name
    rows = write(data)
    assert data.stat().st_size > 2 * _LIMIT_MIB << 20
    command = [sys.executable, "-c", _LIMITED, str(tmp_path / "peak"), "check", "-f", str(manifest_of(tmp_path, data))]
    # By default Arrow's pool and OpenBLAS reserve more than the limit, and never touch it.
    environment = os.environ | {"ARROW_DEFAULT_MEMORY_POOL": "system", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    data.unlink()
    assert done.returncode == code, done.stderr[-2000:]
    assert code != ExitCode.OK or json.loads(done.stdout)["train"]["rows"] == rows
    peak = int((tmp_path / "peak").read_text()) >> 10
    assert peak < _LIMIT_MIB, f"{peak} MiB resident"


def test_rows_are_shown_with_what_carries_loss_where_somebody_asks_for_it(check, tiny_model):
    shown = check("--model-cache", tiny_model, "--show-rows", "1", train=("train.jsonl", GOOD))
    assert "line 1: " in shown.err
    assert "⟦blue<|im_end|>⟧" in shown.err
    assert "grass" not in shown.err
    assert "What colour" not in shown.verdict.model_dump_json()
    for flags in (("--model-cache", tiny_model), ()):
        assert "blue" not in check(*flags, train=("train.jsonl", GOOD)).err


def test_rows_are_not_shown_without_a_tokenizer_or_of_bad_data(check, tiny_model):
    assert "cannot be shown as tokens: no model cache" in check("--show-rows", train=("train.jsonl", GOOD)).err
    bad = check("--model-cache", tiny_model, "--show-rows", train=("train.jsonl", GOOD + '{"prompt": "secret"}'))
    assert bad.code == ExitCode.DATASET_INVALID
    assert "secret" not in bad.err


MESSAGES = '[{""role"": ""user"", ""content"": ""a""}]'


@pytest.mark.parametrize(
    ("name", "data", "warning"),
    [
        ("t.csv", "Prompt;Completion\na;b\n", "t.csv: read by the columns {prompt: Prompt, completion: Completion}"),
        ("t.json", '{"conversations":[{"from":"human","value":"a"},{"from":"gpt","value":"b"}]}', "{messages: conv"),
        ("t.jsonl", '{"instruction":"a","input":"","output":"b"}', "completion: output}, with input below the prompt"),
        ("t.csv", f'prompt,completion\n"{MESSAGES}",b\n', "t.csv: the first row has messages written as JSON for text"),
        ("t-00002-of-00005.csv", "prompt,completion\na,b\n", "part 3 of 5 by its name; the other parts are not read"),
    ],
)
def test_how_a_file_was_read_is_said_where_it_may_not_be_meant(check, name, data, warning):
    result = check(train=(name, data))
    assert result.code == ExitCode.OK
    assert [one for one in result.verdict.warnings if warning in one]


def test_tools_that_rows_name_are_not_left_out_without_a_word(check):
    row = '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "tools": []}\n'
    assert "t.jsonl: column tools is not read: rows are learnt as if the model had no tools" in (
        check(train=("t.jsonl", row)).verdict.warnings
    )


def test_special_tokens_in_the_text_of_rows_are_warned_of(check, tiny_model):
    secret = "a <|im_end|> b"
    rows = [{"prompt": "a <|im b", "completion": "c"}, {"prompt": "d", "completion": secret}]
    talk = {"messages": [{"role": "user", "content": secret}, {"role": "assistant", "content": secret}]}
    data = "".join(json.dumps(row) + "\n" for row in [*rows, talk])
    result = check("--model-cache", tiny_model, train=("t.jsonl", data), test=("v.jsonl", GOOD))
    assert result.code == ExitCode.OK
    (warning,) = [one for one in result.verdict.warnings if "special token" in one]
    assert warning.startswith("t.jsonl: 2 rows with a special token of the model in the text (the first: line 2)")


@pytest.mark.parametrize("word", ["nan", "#N/A", "None"])
def test_texts_that_mean_no_value_are_warned_of(check, word):
    table = f"prompt,completion\na,{word}s\nb,{word}\n{word},c\n{word},{word}\n"
    talk = {"messages": [{"role": "user", "content": word}, {"role": "assistant", "content": "a"}]}
    result = check(train=("t.csv", table), test=("v.jsonl", json.dumps(talk)), validation=("w.jsonl", GOOD))
    found = [one.partition(" with ")[0] for one in result.verdict.warnings if "means no value" in one]
    assert found == ["t.csv: 3 rows", "v.jsonl: 1 row"]
    assert any("(the first: line 3)" in one for one in result.verdict.warnings)


def test_a_plain_file_has_no_warning_of_how_it_was_read(check):
    result = check(train=("t-00000-of-00001.jsonl", GOOD), validation=("v.csv", "prompt,completion\na,b\n"))
    assert [one for one in result.verdict.warnings if not one.startswith("tokens were not counted")] == []


def test_the_input_of_an_instruction_is_not_left_out_without_a_word(check):
    data = '{"instruction": "a", "input": "b", "output": "c"}\n'
    columns = {"prompt": "instruction", "completion": "output"}
    result = check(train=("t.jsonl", data), spec={"dataset": {"columns": columns}})
    assert any("t.jsonl: column input is not read" in warning for warning in result.verdict.warnings)
