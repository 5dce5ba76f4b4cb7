"""`finetune-trainer check` on rows with two answers."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from finetune_api.exit_codes import ExitCode
from tests.assets.tiny_seq2seq import T5, make_tiny_t5

PAIRS = {"spec": {"preference": {}}}


def test_two_dialogues_written_as_text_are_refused_with_the_step_that_makes_rows_of_them(check):
    row = '{"chosen": "\\n\\nHuman: a\\n\\nAssistant: b", "rejected": "\\n\\nHuman: a\\n\\nAssistant: c"}'
    result = check(train=("t.jsonl", row), **PAIRS)
    assert "has no column 'prompt' or 'messages'" in result.verdict.message
    assert result.verdict.next_step.startswith("Write what both answer into a column prompt, or write chosen and")


def rows(*changes):
    """Good rows, each with changes of its own."""
    made = [
        {"prompt": f"p{n}", "chosen": f"good {n}", "rejected": f"bad {n}"} | change for n, change in enumerate(changes)
    ]
    return "".join(json.dumps(row) + "\n" for row in made)


def test_a_good_dataset_is_valid_in_every_format(check, tmp_path):
    table = {"prompt": ["a"], "chosen": [[{"role": "assistant", "content": "b"}]]}
    table["rejected"] = [[{"role": "assistant", "content": "c"}]]
    pq.write_table(pa.table(table), tmp_path / "made.parquet")
    result = check(
        train=("train.jsonl", rows({}, {"system": "s"})),
        validation=("validation.csv", "prompt,chosen,rejected\na,b,c\n"),
        test=("test.parquet", (tmp_path / "made.parquet").read_bytes()),
        **PAIRS,
    )
    assert result.code == ExitCode.OK, result.err
    assert "train.jsonl has 2 rows, validation.csv has 1 row, test.parquet has 1 row" in result.verdict.message


def test_bad_rows_are_named_with_file_line_and_column(check):
    text = rows({}, {"rejected": "good 1"}, {"chosen": ""}, {"prompt": None}, {"rejected": 3})
    result = check(train=("train.jsonl", text), **PAIRS)
    assert result.code == ExitCode.DATASET_INVALID
    assert result.verdict.message == (
        "train.jsonl: 4 of 5 rows cannot be used: line 2: chosen and rejected are the same: nothing to learn; "
        "line 3: chosen is empty; line 4: prompt is missing; line 5: rejected is a number, not text"
    )
    found = [(one.line, one.field, one.problem) for one in result.verdict.train.problems]
    assert found == [
        (2, "rejected", "SameAnswers"),
        (3, "chosen", "Empty"),
        (4, "prompt", "Missing"),
        (5, "rejected", "NotText"),
    ]


def test_rows_that_are_read_and_wrong_are_to_be_corrected_and_the_format_is_not_in_doubt(check):
    result = check(
        train=("train.jsonl", rows({"system": "s", "prompt": [{"role": "assistant", "content": "b"}]})), **PAIRS
    )
    assert "line 1: the last message of the prompt is not the user's" in result.verdict.message
    assert result.verdict.next_step.startswith("Correct the rows")


@pytest.mark.parametrize(
    ("head", "said", "mapping"),
    [
        (
            "prompt,completion",
            "2 rows has a column 'chosen'",
            "{chosen: NAME, rejected: NAME}",
        ),
        ("question,preferred,loser", "a column 'chosen'", "{prompt: question, chosen: preferred, rejected: loser}"),
        ("prompt,chosen,rejectd", "a column 'rejected'; its columns are prompt, chosen", "{rejected: rejectd}"),
        ("question,chosen,rejected", "a column 'prompt' or 'messages'", "{prompt: question}"),
    ],
)
def test_columns_that_are_missing_are_named_with_those_that_were_meant(check, head, said, mapping):
    cells = ",".join("abc"[: head.count(",") + 1])
    result = check(train=("train.csv", f"{head}\n{cells}\n{cells}\n"), **PAIRS)
    assert result.code == ExitCode.DATASET_INVALID
    assert said in result.verdict.message
    assert mapping in result.verdict.next_step


@pytest.mark.parametrize(
    "row", ['{"prompt": "p", "completion": "a"}', '{"messages": [{"role": "user", "content": "a"}]}']
)
def test_a_dataset_of_one_answer_for_two_is_told_that_the_job_may_be_another(check, row):
    result = check(train=("train.jsonl", f"{row}\n"), **PAIRS)
    assert result.code == ExitCode.DATASET_INVALID
    assert result.verdict.next_step.startswith("Remove spec.preference if each row has one answer")


def test_a_dataset_of_one_answer_is_told_which_column_is_missing(check):
    result = check(train=("train.jsonl", '{"prompt": "p", "chosen": "a", "rejected": "b"}\n'))
    assert result.code == ExitCode.DATASET_INVALID
    assert "{completion: chosen}" in result.verdict.next_step
    assert (
        "Write spec.preference: {} if the model is to learn which of two answers is better" in result.verdict.next_step
    )


def test_a_name_for_the_completion_is_refused_where_none_is_read(check):
    spec = {"preference": {}, "dataset": {"columns": {"completion": "chosen"}}}
    result = check(train=("train.jsonl", rows({})), spec=spec)
    assert result.code == ExitCode.SPEC_INVALID
    assert "spec.dataset.columns.completion: it has no meaning with preference" in result.verdict.message
    assert result.verdict.next_step == "Remove it, or remove spec.preference."


def test_duplicates_shared_and_long_rows_are_warned_about(check, tiny_model):
    long = {"chosen": "yes " * 60, "rejected": "yes " * 61}
    result = check(
        "--model-cache",
        tiny_model,
        train=("train.jsonl", rows({}, {}, long) + rows({})),
        validation=("validation.jsonl", rows({})),
        spec={"preference": {}, "hyperparameters": {"maxSequenceLength": 40}},
    )
    assert result.code == ExitCode.OK, result.err
    train = result.verdict.train
    assert (train.duplicate_rows, train.truncated_rows) == (1, 1)
    assert train.longest_row > 60
    assert train.tokens > train.completion_tokens
    warnings = "\n".join(result.verdict.warnings)
    assert "train.jsonl: 1 row exactly like an earlier row" in warnings
    assert "train.jsonl: 1 row longer than maxSequenceLength 40; the end is cut" in warnings
    assert "1 row without two different answers within maxSequenceLength 40 (the first: line 3)" in warnings
    assert "validation.jsonl: 1 row also in train.jsonl" in warnings


def test_where_nothing_is_left_to_learn_the_length_is_to_be_raised(check, tiny_model):
    result = check(
        "--model-cache",
        tiny_model,
        train=("train.jsonl", rows({}, {})),
        spec={"preference": {}, "hyperparameters": {"maxSequenceLength": 8}},
    )
    assert result.code == ExitCode.DATASET_INVALID
    assert result.verdict.message == "train.jsonl: no row has two different answers within maxSequenceLength 8"
    assert "maxSequenceLength" in result.verdict.next_step


def test_shown_rows_are_both_answers(check, tiny_model):
    result = check("--model-cache", tiny_model, "--show-rows", 1, train=("train.jsonl", rows({}, {})), **PAIRS)
    assert "line 1, chosen: " in result.err
    assert "line 1, rejected: " in result.err
    assert "⟦bad 0<|im_end|>⟧" in result.err


def test_memory_is_that_of_both_answers(check, tiny_model):
    text = rows(*({"chosen": "yes " * 40, "rejected": "yes " * 38} for _ in range(3)))
    both = check("--model-cache", tiny_model, train=("train.jsonl", text), **PAIRS)
    spec = {"dataset": {"columns": {"completion": "chosen"}}}
    one = check("--model-cache", tiny_model, train=("train.jsonl", text), spec=spec)
    assert both.verdict.train.longest_row == one.verdict.train.longest_row
    assert both.memory[0]["passTokens"] == 2 * one.memory[0]["passTokens"]


def test_an_encoder_decoder_cannot_learn_from_two_answers(check, tmp_path):
    make_tiny_t5(tmp_path / "models")
    result = check(
        "--model-cache", tmp_path / "models", train=("train.jsonl", rows({})),
        spec={"preference": {}, "baseModel": T5},
    )  # fmt: skip
    assert result.code == ExitCode.SPEC_INVALID
    assert f"spec.preference: {T5} is an encoder-decoder" in result.verdict.message
    assert "Remove spec.preference" in result.verdict.next_step
