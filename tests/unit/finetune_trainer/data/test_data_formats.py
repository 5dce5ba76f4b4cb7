"""How a file is read: by the job, by its ending, and before both by what its first bytes tell."""

import lzma

import pytest

from finetune_trainer.errors import TrainerError
from tests.unit.finetune_trainer.data.files import COMPRESSIONS, GZIP, LINES, records, split_file


@pytest.mark.parametrize("name", ["data", "data.txt", "data.gz"])
def test_an_unknown_ending_asks_for_the_format(name, tmp_path):
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(TrainerError, match=r"spec\.dataset\.train: the ending of") as raised:
        records(tmp_path / name)
    assert raised.value.reason == "SpecInvalid"
    assert raised.value.next_step == "Set spec.dataset.train.format to CSV, JSONLines, JSON or Parquet."


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("d.arrow", "to_parquet"),
        ("d.XLSX", "as CSV"),
        ("d.csv.zip", "out of the archive"),
        ("d.sql", "Export the table as CSV"),
        ("d.jsonl.lzma", "Compress the file with gzip"),
    ],
)
def test_endings_of_other_formats_are_answered_with_what_to_write(name, step, tmp_path):
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(TrainerError, match=f"the ending of {name} does not tell its format") as raised:
        records(tmp_path / name)
    assert step in raised.value.next_step


@pytest.mark.parametrize("name", ["data.jsonl", "data.jsonl.zst", "data.jsonl.gz", "data.JSONL.XZ"])
def test_compression_is_known_by_its_first_bytes(name, tmp_path):
    (tmp_path / name).write_bytes(GZIP)
    with split_file(tmp_path / name) as file:
        assert len(list(file.records())) == 1000
        assert str(file.format) == "JSONLines, gzip"


@pytest.mark.parametrize("name", ["data.jsonl.gz", "data.jsonl.bz2"])
def test_text_is_read_though_its_name_says_that_it_is_compressed(name, tmp_path):
    (tmp_path / name).write_bytes(LINES)
    with split_file(tmp_path / name) as file:
        assert len(list(file.records())) == 1000
        assert str(file.format) == "JSONLines"


@pytest.mark.parametrize("compress", list(COMPRESSIONS.values())[1:])
def test_compressed_files_may_stand_one_behind_the_other(compress, tmp_path):
    (tmp_path / "t.jsonl").write_bytes(compress(b'{"a":') + compress(b"1}\n") + compress(b'{"a":2}'))
    assert [one.fields for one in records(tmp_path / "t.jsonl")] == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize(
    ("name", "data", "read_as"),
    [
        ("t.csv", b'prompt;completion\n"a;1";b,c\n', "CSV, semicolons"),
        ("t.csv", b"prompt\tcompletion\na;1\tb,c\n", "CSV, tabs"),
        ("t.tsv", b"prompt\tcompletion\na;1\tb,c\n", "CSV, tabs"),
        ("t.tsv", b'prompt,completion\na;1,"b,c"\n', "CSV"),
        ("t.csv", b'"prompt"|"completion"\r\n"a;1"|"b,c"\r\n', "CSV, bars"),
        ("t.csv", b'sep=;\r\nprompt;completion\r\n"a;1";b,c\r\n', "CSV, semicolons"),
        ("t.csv", b'\xef\xbb\xbf"sep=^"\nprompt^completion\na;1^b,c\n', "CSV, separated by ^"),
        ("t.csv", "prompt\tcompletion\r\na;1\tb,c\r\n".encode("utf-16"), "CSV, UTF-16, tabs"),
        ("t.csv", "prompt\tcompletion\r\na;1\tb,c\r\n".encode("utf-16-le"), "CSV, UTF-16LE, tabs"),
        ("t.csv.xz", lzma.compress('prompt;completion\n"a;1";b,c'.encode("utf-16")), "CSV, UTF-16, semicolons, xz"),
        ("t.json", b'{"prompt":"a;1","completion":"b,c"}\n', "JSONLines"),
        ("t.jsonl", b'[{"prompt":"a;1","completion":"b,c"}]', "JSON"),
        ("t.json", '{"prompt":"a;1","completion":"b,c"}\n'.encode("utf-16"), "JSONLines, UTF-16"),
    ],
)
def test_what_a_file_does_not_say_by_its_name_is_found_out(name, data, read_as, tmp_path):
    (tmp_path / name).write_bytes(data)
    with split_file(tmp_path / name) as file:
        assert [one.fields for one in file.records()] == [{"prompt": "a;1", "completion": "b,c"}]
        assert str(file.format) == read_as


@pytest.mark.parametrize(
    ("header", "columns", "names"),
    [
        ("prompt,completion;prompt;completion", {}, ["prompt,completion", "prompt", "completion"]),
        ("messages", {}, ["messages"]),
        ("id;messages", {}, ["id", "messages"]),
        ("Prompt;COMPLETION", {}, ["Prompt", "COMPLETION"]),
        ("a, b;label", {"prompt": "a, b", "completion": "label"}, ["a, b", "label"]),
        ("a, b;c", {}, ["a", "b;c"]),  # of no use either way
    ],
)
def test_the_separator_is_the_one_that_gives_the_columns_of_the_job(header, columns, names, tmp_path):
    (tmp_path / "t.csv").write_text(header + "\n")
    with split_file(tmp_path / "t.csv", **columns) as file:
        assert list(file.records()) == []
        assert list(file.columns_seen) == names


def test_what_is_no_character_of_utf_16_is_a_bad_row(tmp_path):
    (tmp_path / "t.csv").write_bytes("prompt,completion\na,b\n\ud800,c\n".encode("utf-16", "surrogatepass"))
    found = records(tmp_path / "t.csv")
    assert [(one.position.line, one.problem and one.problem[:24]) for one in found] == [
        (2, None),
        (3, "the row is not UTF-8 text"[:24]),
    ]


@pytest.mark.parametrize("name", ["a\rb", "a\nb", "a\r\nb"])
def test_the_only_column_of_a_table_may_have_a_line_break_in_its_name(name, tmp_path):
    (tmp_path / "t.csv").write_bytes(f'"{name}"\n1\n'.encode())
    assert [record.fields for record in records(tmp_path / "t.csv")] == [{name: "1"}]


@pytest.mark.parametrize("name", ["PARENT", "ORCID"])
def test_a_header_that_begins_like_another_format_is_a_header(name, tmp_path):
    (tmp_path / "t.csv").write_text(f"{name},prompt,completion\n1,a,b\n")
    assert records(tmp_path / "t.csv")[0].fields == {name: "1", "prompt": "a", "completion": "b"}


@pytest.mark.parametrize(("name", "data"), [("data", b'{"a":1}\n'), ("data.csv.gz", GZIP)])
def test_the_format_of_the_job_goes_before_the_ending(name, data, tmp_path):
    (tmp_path / name).write_bytes(data)
    assert records(tmp_path / name, data_format="JSONLines")[0].fields == {"a": 1}
