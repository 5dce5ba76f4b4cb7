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
from tests.unit.finetune_trainer.checked import GOOD
from tests.unit.finetune_trainer.data.files import as_parquet


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
    step = (
        "Correct the rows, or map the columns with spec.dataset.columns, and check again. To leave such rows out: "
        "`sed '17d;401d' FILE > ROWS.jsonl`."
    )
    assert result.verdict.next_step == step, "whoever checks is told neither of the command nor of a job's new name"


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
        ("t.csv", "text,label\n", {}, "has no rows, and no column 'prompt' or 'messages'; its columns are text, label"),
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
        ("t.jsonl", '{"instruction":"a","history":[],"output":"b"}', {}, "the earlier turns before the instruction"),
        ("t.jsonl", '{"text":"a"}', {}, "no column for prompt and completion: write a column for each of"),
        ("t.csv", "text\na\n", {}, "no column for prompt and completion: write a column for each of"),
        ("t.jsonl", '{"prompt":"a"}', {}, "no column for completion: write a column for each of prompt, completion."),
        ("t.csv", "prompt^completion\na^b\n", {}, 'delimiter="^"'),
        ("t.csv", "prompt'completion\na'b\n", {}, "Let the file begin with a line of its columns' names"),
        ("t.jsonl", '{"input":{},"preferred_output":[],"non_preferred_output":[]}', {}, "Write spec.preference: {} if"),
        ("t.jsonl", '{"conversation":[]}', {}, "{messages: conversation}"),
        (
            "t.jsonl",
            '{"text":"a","label":"b"}',
            {"prompt": "txt", "completion": "lable"},
            "{prompt: text, completion: label}",
        ),
        ("t.csv", "my promt,completion\na,b\n", {"prompt": "my prompt"}, '{prompt: "my promt"}'),
        ("t.jsonl", '{"prompt":"a","completion":"b"}', {"prompt": "text"}, "Remove prompt from spec.dataset.columns"),
        ("t.jsonl", '{"foo":"a","bar":"b"}', {}, "{prompt: NAME, completion: NAME}"),
        ("t.jsonl", '{"dialog":[{"speaker":"a","text":"b"}]}', {}, "{messages: dialog}"),
        (
            "t.csv",
            "How are you?,fine\nAnd you?,fine\n",
            {},
            "Let the file begin with a line of its columns' names: `python3 -c 'import shutil, sys; print(\"prompt,",
        ),
        (
            "t.jsonl",
            '[{"role":"user","content":"a"}]\n' * 2,
            {},
            "Write one conversation a row: `jq -c '{messages: .}'",
        ),
        ("t.parquet", as_parquet([{"translation": {"en": "a"}}]), {}, "{prompt: .NAME.NAME, completion: .NAME.NAME}"),
        ("t.parquet", as_parquet([{f"c{number}": "a" for number in range(70)}]), {}, "Map the names with"),
        ("t.csv", "404: Not Found", {}, "Fetch it again"),
        ("t.csv", "Is it so?", {}, "Let the file begin with a line of its columns' names, or map the names with"),
        ("t.csv", "question;answer\na;b\n", {}, "{prompt: question, completion: answer}"),
        ("t.csv", "Q,A\na,b\n", {}, "{prompt: Q, completion: A}"),
        ("t.csv", "Is it so or not?,A\nAnd this?,B\n", {}, "{prompt: NAME, completion: NAME}"),
        (
            "t.json",
            '{"Is it so, and why?":"Yes","Cancel it":"Done"}',
            {},
            "makes rows of objects that have questions for",
        ),
        ("t.jsonl", '{"id":1,"data":{"x":"a"}}', {}, "`jq -c '{prompt: .NAME.NAME, completion: .NAME.NAME}' FILE"),
        ("t.json", '[{"prompt":"a","fields":{"x":"a"}}]', {}, "`jq -c '.[] | . + {completion: .NAME.NAME}' FILE"),
    ],
)
def test_the_next_step_names_the_columns_that_were_probably_meant(check, name, data, columns, step):
    assert step in check(train=(name, data), spec={"dataset": {"columns": columns}}).verdict.next_step


@pytest.mark.parametrize("data", ["prompt;completion\r\nGr\u00fc\u00dfe;a\r\n", "prompt;completion \u00e4\r\na;b\r\n"])
def test_text_of_windows_is_answered_with_how_to_save_it(check, data):
    result = check(train=("t.csv", data.encode("cp1252")))
    assert "the row is not UTF-8 text" in result.verdict.message
    assert result.verdict.next_step.startswith("Save the file as UTF-8: Excel calls it CSV UTF-8, and `iconv -f")


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


@pytest.mark.parametrize(
    "rows",
    [
        [{"Ada card": "4111"}, {"Ada other card": "4222"}],  # what is asked stands as the name of what is answered
        [{"My name is Ada and I live here": "yes", "label": "b"}],
        [{"Ada 4111111111111111": "yes", "label": "b"}],
    ],
)
def test_names_in_json_are_not_repeated_where_they_may_be_data(check, rows):
    result = check(train=("t.jsonl", "".join(json.dumps(row) + "\n" for row in rows)))
    assert "its columns are" in result.verdict.message or "look like data" in result.verdict.message
    assert "Ada" not in result.verdict.model_dump_json() + result.err


def test_questions_that_are_names_of_their_answers_become_rows_by_a_command(check):
    rows = "".join(json.dumps({f"Ada {number}": "yes"}) + "\n" for number in range(3))
    verdict = check(train=("t.jsonl", rows)).verdict
    assert verdict.message.endswith("; the names of its columns look like data")
    assert verdict.next_step.startswith("`jq -c 'to_entries[] | {prompt: .key, completion: .value}' FILE > ROWS.jsonl`")


@pytest.mark.parametrize(
    ("header", "mapping"),
    [
        ("Frage;Antwort", "{prompt: Frage, completion: Antwort}"),
        ("pregunta,respuesta", "{prompt: pregunta, completion: respuesta}"),
        ("質問,回答", '{prompt: "質問", completion: "回答"}'),
        ("input_text,output_text", "{prompt: input_text, completion: output_text}"),
        ("inputs,targets", "{prompt: inputs, completion: targets}"),
        ("id,article,highlights", "{prompt: article, completion: highlights}"),
        ("src,tgt", "{prompt: src, completion: tgt}"),
        ("human,gpt", "{prompt: human, completion: gpt}"),
        ("id,dialogue,summary", "{prompt: dialogue, completion: summary}"),
        ("inputs,ground_truth", "{prompt: inputs, completion: ground_truth}"),
        ("id,dialogue", "{messages: dialogue}"),
    ],
)
def test_usual_names_of_other_languages_and_services_are_known(check, header, mapping):
    result = check(train=("t.csv", f"{header}\na;b,c\n"))
    assert mapping in json.loads(json.dumps(result.verdict.next_step))


def test_a_column_of_objects_is_no_prompt_and_no_completion(check):
    row = {"id": "1", "response": {"body": {"choices": []}}}
    step = check(train=("t.jsonl", json.dumps(row) + "\n")).verdict.next_step
    assert "`jq -c '{prompt: .NAME.NAME, completion: .NAME.NAME}' FILE > ROWS.jsonl` takes them out of objects." in step


def test_names_are_not_repeated_where_there_are_so_many_that_they_may_be_data(check):
    rows = "".join(json.dumps({f"Ada {number}": "a", "label": "b"}) + "\n" for number in range(70))
    result = check(train=("t.jsonl", rows))
    assert "its columns are label and 70 more" in result.verdict.message
    assert "Ada" not in result.verdict.model_dump_json() + result.err


def test_a_file_of_which_no_line_is_json_is_asked_for_its_format(check):
    result = check(train=("t.jsonl", "prompt,completion\na,b\n"))
    assert result.verdict.next_step.startswith("The file was read as JSONLines: set spec.dataset.train.format")


@pytest.mark.parametrize("rows", ['[["a", "b"], ["c", "d"]]', '[[{"role": "user", "content": "a"}]]'])
def test_an_array_of_other_things_than_objects_is_told_how_rows_are_made_of_it(check, rows):
    result = check(train=("t.json", rows))
    assert "row 0 (line 1): the element is not a JSON object" in result.verdict.message
    assert "makes rows of lists of messages, of pairs of texts" in result.verdict.next_step


def test_rows_that_were_written_as_text_are_told_how_they_become_objects(check):
    result = check(train=("t.jsonl", json.dumps(json.dumps({"prompt": "a", "completion": "b"})) + "\n"))
    assert "line 1: the line is not a JSON object" in result.verdict.message
    assert "of objects that are written as text, on lines of their own" in result.verdict.next_step


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
        ("t.parquet", "", ExitCode.DATASET_INVALID, "t.parquet is empty"),
        (
            "t.parquet",
            "prompt,completion\na,b\n",
            ExitCode.DATASET_INVALID,
            "is not a Parquet file: it begins otherwise",
        ),
        ("t.parquet", b"PAR1cut", ExitCode.DATASET_INVALID, "is not a Parquet file, or its end is missing"),
        ("t.txt", GOOD, ExitCode.SPEC_INVALID, "the ending of t.txt does not tell its format"),
    ],
)
def test_a_file_that_cannot_be_used_gets_its_own_sentence(check, name, data, code, said):
    result = check(train=(name, data))
    assert result.code == code
    assert said in result.verdict.message
    assert result.verdict.next_step
    assert "Traceback" not in result.err


def test_an_evaluation_without_a_test_set_is_warned_of(check):
    asked = {"evaluation": {"metrics": ["chrF"]}}
    ignored = "spec.evaluation has no effect: without spec.dataset.test nothing is measured"
    assert ignored in check(spec=dict(asked), train=("t.jsonl", GOOD)).verdict.warnings
    assert ignored not in check(spec=dict(asked), train=("t.jsonl", GOOD), test=("u.jsonl", GOOD)).verdict.warnings
    filled_in = {"evaluation": {"metrics": ["exactMatch"], "baselines": [{"zeroShot": {}}]}}
    assert ignored not in check(spec=filled_in, train=("t.jsonl", GOOD)).verdict.warnings


def test_without_the_model_there_are_no_counts_and_it_says_so(check, tmp_path):
    for flags, why in (((), "no model cache was given"), (("--model-cache", tmp_path), f"{TINY} is not in the model")):
        result = check(*flags, train=("train.jsonl", GOOD))
        assert result.verdict.train.tokens is None
        assert [w for w in result.verdict.warnings if w.startswith(f"tokens were not counted: {why}")]


COUNTED = {
    "openAI": ("gpt-4o-mini-2024-07-18", "OpenAI counts them"),
    "openAICompatible": ("llama", "the service counts them"),
    "azureOpenAI": ("gpt-4o-mini-2024-07-18", "Azure OpenAI counts them"),
    "bedrock": ("amazon.nova-micro-v1:0:128k", "Bedrock (Nova) counts them"),
    "sageMaker": (TINY, "no model cache was given (--model-cache DIR)"),
}


@pytest.mark.parametrize("provider", COUNTED)
def test_of_a_providers_own_model_no_cache_is_asked_for(check, provider):
    model, why = COUNTED[provider]
    rows = "".join(f'{{"prompt": "p{n}", "completion": "c{n}"}}\n' for n in range(20))
    result = check("--provider", provider, train=("train.jsonl", rows), spec={"baseModel": model})
    assert result.code == ExitCode.OK, result.err
    assert [w for w in result.verdict.warnings if w.startswith("tokens")] == [f"tokens were not counted: {why}"]


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


def test_a_dataset_with_no_answer_left_is_invalid(check, tiny_model):
    result = check(
        "--model-cache", tiny_model, train=("t.jsonl", GOOD), spec={"hyperparameters": {"maxSequenceLength": 8}}
    )
    assert result.code == ExitCode.DATASET_INVALID
    assert "no row has a token of its completion within maxSequenceLength 8" in result.verdict.message
    assert "maxSequenceLength" in result.verdict.next_step


def test_a_wrong_manifest_is_a_verdict_too(tmp_path, capsys):
    (tmp_path / "job.yaml").write_text("kind: FineTuneJob\nspec: {basemodel: x}\n")
    code = main(["check", "-f", str(tmp_path / "job.yaml")])
    verdict = DatasetVerdict.model_validate_json(capsys.readouterr().out)
    assert (code, verdict.reason) == (ExitCode.SPEC_INVALID, "SpecInvalid")
    assert "spec.basemodel: no such field; did you mean baseModel?" in verdict.message


def test_each_job_of_a_file_gets_its_verdict_and_the_worst_its_exit_code(tmp_path, capsys):
    (tmp_path / "good.jsonl").write_text(GOOD)
    manifests = [manifest_of(tmp_path, tmp_path / name).read_text() for name in ("good.jsonl", "none.jsonl")]
    manifests[1] = manifests[1].replace('"name": "job"', '"name": "another"')
    (tmp_path / "jobs.yaml").write_text("\n---\n".join(manifests))
    assert main(["check", "-f", str(tmp_path / "jobs.yaml")]) == ExitCode.DATASET_NOT_FOUND
    found, out = [], capsys.readouterr().out
    while out.strip():
        verdict, end = json.JSONDecoder().raw_decode(out)
        found.append(verdict["reason"])
        out = out[end:].lstrip()
    assert found == ["Valid", "DatasetNotFound"]


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


def test_check_imports_neither_torch_nor_transformers_nor_pandas(tmp_path, tiny_model, monkeypatch):
    """Pandas is not in the image, but on many machines; pyarrow imports it as soon as it has a question for it."""
    (tmp_path / "t.jsonl").write_text(GOOD)
    (tmp_path / "pandas.py").touch()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
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


@pytest.mark.alike
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
