"""What `finetune-trainer check` says to do about rows that cannot be read: its commands are run, and help."""

import json
import re
import shutil
import subprocess

import pytest

from tests.assets.tiny_model import NAME as TINY
from tests.unit.finetune_trainer.data.files import as_parquet

ROWS = [{"prompt": f"Größe {number}?", "completion": f"schön {number}"} for number in range(3)]
LINES = [json.dumps(row, ensure_ascii=False) for row in ROWS]


@pytest.fixture
def mended(check, tmp_path):
    """The file that the next step's command makes of a bad one, and the verdict on it."""

    def run(name, data, **spec):
        bad = check(train=(name, data), spec=dict(spec)).verdict
        assert not bad.valid
        (command,) = re.findall(r"`((?:python3|sed|jq) .*?)`(?: |$)", bad.next_step)
        if not shutil.which(command.split()[0]):
            pytest.skip(f"{command.split()[0]} is not installed here")
        command = re.sub(r"\bFILE\b", str(tmp_path / name), command).replace("ROWS.jsonl", str(tmp_path / "new"))
        said = subprocess.run(["bash", "-c", command], capture_output=True, check=True).stdout
        text = (tmp_path / "new").read_bytes() if (tmp_path / "new").exists() else said
        return text.decode(), check(train=(f"mended-{name}", text), spec=dict(spec)).verdict

    return run


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("quotes.jsonl", "".join(f"{row}\n" for row in ROWS)),
        ("quotes.json", str(ROWS)),
        ("none.jsonl", "".join(f"{ {**row, 'note': None} }\n" for row in ROWS)),
        ("commas.jsonl", "".join(f"{line},\n" for line in LINES)),
        ("commas.jsonl", "".join(f"{line}, \r\n" for line in LINES)),
        ("one-line.jsonl", "".join(LINES)),
        ("put-together.jsonl", "\ufeff" + "\n\ufeff".join(LINES)),
        ("marked-twice.jsonl", "\ufeff\ufeff" + "\n".join(LINES)),
        ("pretty.jsonl", "\n".join(json.dumps(row, indent=2) for row in ROWS)),
        ("arrays.jsonl", "".join(f"[{line}]\n" for line in LINES)),
    ],
)
def test_the_command_makes_rows_of_what_is_nearly_json(mended, name, data):
    text, verdict = mended(name, data)
    assert verdict.valid, verdict.message
    assert [json.loads(line)["prompt"] for line in text.splitlines()] == [row["prompt"] for row in ROWS]


@pytest.mark.parametrize("name", ["t.jsonl", "t.csv"])
def test_lines_of_two_encodings_are_mended_without_touching_those_that_are_right(mended, name):
    """iconv over the whole file would write Ã¶ for ö in the lines that are UTF-8 already."""
    lines = LINES if name == "t.jsonl" else ["prompt,completion", *(",".join(row.values()) for row in ROWS)]
    mixed = b"".join(f"{line}\n".encode("cp1252" if number == 2 else "utf-8") for number, line in enumerate(lines))
    text, verdict = mended(name, mixed)
    assert verdict.valid, verdict.message
    assert text.splitlines() == lines


def test_a_whole_file_of_another_encoding_is_for_iconv_alone(check):
    step = check(train=("t.csv", "prompt,completion\nö,ü\n".encode("cp1252"))).verdict.next_step
    assert "`iconv -f ENCODING -t UTF-8 FILE`" in step
    assert "python3" not in step


@pytest.mark.parametrize("completions", [[1, 0, 1], [True, False, True], [0.5, 1, 2]])
def test_numbers_and_booleans_are_answered_with_how_they_become_text(mended, completions):
    data = "".join(json.dumps({"text": "a", "label": one}) + "\n" for one in completions)
    text, verdict = mended("t.jsonl", data, dataset={"columns": {"prompt": "text", "completion": "label"}})
    assert verdict.valid, verdict.message
    assert [json.loads(line)["label"] for line in text.splitlines()] == [json.dumps(one) for one in completions]


def test_numbers_in_parquet_are_answered_with_pandas(check):
    step = check(train=("t.parquet", as_parquet([{"prompt": "a", "completion": 1}]))).verdict.next_step
    assert "astype(str)" in step


@pytest.mark.parametrize(
    ("line", "step"),
    [
        ('{"prompt":"a","completion":NaN}', "to_json of pandas"),
        ('{"prompt":"C:\\users","completion":"a"}', "json.dumps"),
        ('{"prompt":"a\tb","completion":"a"}', "json.dumps"),
        ('{"prompt":"a\\ud83d","completion":"a"}', "in the middle of a character"),
        ("nothing like it", "set spec.dataset.train.format if it is something else"),
    ],
)
def test_what_is_wrong_with_all_rows_decides_what_to_do(check, line, step):
    assert step in check(train=("t.jsonl", f"{line}\n")).verdict.next_step


def test_one_line_that_is_no_row_is_not_taken_for_a_file_without_any(check):
    step = check(train=("t.jsonl", "\n".join([*LINES, "5"]))).verdict.next_step
    assert step.startswith("Correct the rows")


@pytest.mark.parametrize("template", ["{{ raise_exception('no system message') }}", "{{ messages[9].content }}"])
def test_rows_that_the_models_chat_template_refuses_are_no_fault_of_their_own(check, tiny_model, tmp_path, template):
    cache = tmp_path / "cache"
    shutil.copytree(tiny_model, cache)
    (cache / TINY / "chat_template.jinja").write_text(template)
    verdict = check("--model-cache", cache, train=("t.jsonl", "\n".join(LINES))).verdict
    assert "3 of 3 rows cannot be used: line 1: the model's chat template refuses it" in verdict.message
    assert verdict.next_step.startswith("Leave out what the model's chat template refuses")


def test_pythons_constants_are_told_apart_from_other_text(check):
    verdict = check(train=("t.jsonl", '{"prompt": "a", "completion": None}\n')).verdict
    assert "line 1: the line is not valid JSON at byte 31: None, True and False are Python's" in verdict.message
    assert "hunter" not in check(train=("t.jsonl", '{"prompt": "a", "completion": hunter}\n')).verdict.message


@pytest.mark.parametrize("name", ["t.jsonl", "t.json", "t.csv"])
def test_a_fence_of_markdown_is_told_as_one(check, name):
    verdict = check(train=(name, f"```json\n{LINES[0]}\n```\n")).verdict
    assert verdict.message == f"{name}: begins with a fence of Markdown"
    assert verdict.next_step == "Remove the lines with ``` from it."
