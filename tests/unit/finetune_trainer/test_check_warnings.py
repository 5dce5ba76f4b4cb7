"""What check warns of: rows that can be used, and were probably not meant so."""

import json

import pytest

from finetune_api.exit_codes import ExitCode
from tests.unit.finetune_trainer.checked import GOOD


def test_a_system_column_that_was_named_and_is_absent_is_warned_of(check):
    data = '{"prompt": "a", "completion": "b", "instructions": "c"}\n'
    result = check(train=("t.jsonl", data), spec={"dataset": {"columns": {"system": "instruction"}}})
    assert result.code == ExitCode.OK
    assert "t.jsonl: no row has a column 'instruction' (columns.system); did you mean instructions?" in (
        result.verdict.warnings
    )


def test_duplicates_and_shared_rows_are_warnings(check):
    result = check(train=("train.jsonl", GOOD + GOOD), test=("test.csv", "prompt,completion\na,b\nAnd grass?,green\n"))
    assert result.code == ExitCode.OK
    assert result.verdict.train.duplicate_rows == 2
    (shared,) = result.verdict.shared_rows
    assert (shared.splits, shared.rows, shared.examples) == (["train", "test"], 1, ["test.csv line 3"])
    assert "train.jsonl: 2 rows exactly like an earlier row" in result.verdict.warnings
    assert "test.csv: 1 row also in train.jsonl (the first: test.csv line 3)" not in result.verdict.warnings
    assert "test.csv: 1 row also in train.jsonl (the first: line 3)" in result.verdict.warnings


def test_rows_that_answer_one_question_differently_or_are_only_written_otherwise_are_warned_of(check, tiny_model):
    rows = (
        GOOD + '{"prompt": "And grass?", "completion": "brown"}\n' + GOOD + '{"prompt": "Is it?", "completion": "no"}\n'
    )
    other = GOOD + '{"prompt": "and  GRASS?", "completion": "Green"}\n{"prompt": "Is it?", "completion": "yes"}\n'
    result = check("--model-cache", tiny_model, train=("t.jsonl", rows), validation=("v.jsonl", other))
    assert result.code == ExitCode.OK
    said = [warning for warning in result.verdict.warnings if "differently" in warning]
    assert said == ["t.jsonl: 3 rows ask what another row answers differently (the first: line 2)"]
    written = "v.jsonl: 1 row also in t.jsonl, but for case, white space or Unicode form (the first: line 3)"
    assert written in result.verdict.warnings
    asked = "v.jsonl: 1 row with a question that t.jsonl answers otherwise (the first: line 4)"
    assert asked in result.verdict.warnings


def test_files_that_are_called_alike_are_told_apart_by_their_splits(check):
    wrong = '{"prompt": "a", "completion": ""}\n'
    result = check(train=("train/rows.jsonl", GOOD), validation=("val/rows.jsonl", GOOD), test=("test/set.jsonl", GOOD))
    assert "rows.jsonl (train) has 2 rows, rows.jsonl (validation) has 2 rows, set.jsonl has" in result.verdict.message
    shared = "rows.jsonl (validation): 2 rows also in rows.jsonl (train) (the first: line 1)"
    assert shared in result.verdict.warnings
    result = check(train=("train/rows.jsonl", GOOD), validation=("val/rows.jsonl", wrong))
    assert result.verdict.message.startswith("rows.jsonl (validation): 1 of 1 row cannot be used: line 1")


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


def test_rows_beyond_what_the_base_model_was_made_for_are_told(check, tiny_model):
    known = json.loads((tiny_model / "test/tiny-llama/config.json").read_text())["max_position_embeddings"]
    rows = GOOD + json.dumps({"prompt": "sky", "completion": "blue " * known}) + "\n"
    spec = {"hyperparameters": {"maxSequenceLength": 2 * known}}
    told = check("--model-cache", tiny_model, train=("t.jsonl", rows), spec=spec).verdict.warnings
    assert any(f"and the base model was made for {known:,}" in one for one in told)
    spec = {"hyperparameters": {"maxSequenceLength": known}}
    told = check("--model-cache", tiny_model, train=("t.jsonl", rows), spec=spec).verdict.warnings
    assert not any("was made for" in one for one in told)


MESSAGES = '[{""role"": ""user"", ""content"": ""a""}]'


@pytest.mark.parametrize(
    ("name", "data", "warning"),
    [
        ("t.csv", "Prompt;Completion\na;b\n", "t.csv: read by the columns {prompt: Prompt, completion: Completion}"),
        ("t.json", '{"conversations":[{"from":"human","value":"a"},{"from":"gpt","value":"b"}]}', "{messages: conv"),
        ("t.jsonl", '{"instruction":"a","input":"","output":"b"}', "completion: output}, with input below the prompt"),
        ("t.csv", f'prompt,completion\n"{MESSAGES}",b\n', "t.csv: the first row has messages written as JSON, or by"),
        (
            "t.csv",
            "prompt,completion\n\"[{'role': 'user', 'content': 'a'}]\",b\n",
            "JSON, or by Python, for text: they",
        ),
        (
            "t.jsonl",
            '{"instruction":"a","input":"<noinput>","output":"b"}',
            "1 row with a word for no value below the instruction",
        ),
        (
            "t.csv",
            "instruction,input,output\na,#N/A,b\n",
            "1 row with a word for no value below the instruction",
        ),
        ("t-00002-of-00005.csv", "prompt,completion\na,b\n", "part 3 of 5 by its name; the other parts are not read"),
        ("t.csv", "prompt,completion\na,b_x000D_\n", "1 row with _x000D_, which is Excel's code for a line break"),
        (
            "t.jsonl",
            '{"prompt":"a","completion":"\\\\"b\\\\""}\n'.replace("\\\\", "\\") * 10,
            "have quotes around the answer",
        ),
        (
            "t.csv",
            'prompt,completion\n"{""role"":""user"",""content"":""a""}",b\n',
            "messages written as JSON, or by Python",
        ),
        ("t.csv", "prompt,completion\ncaf\\u00e9,b\n", r"1 row with escaped letters, such as \u00e9"),
        ("t.csv", "prompt,completion\n[deleted],b\n", "1 row with a text that mostly means no value"),
        ("t.csv", "prompt,completion\nIt\x92s,b\n", "1 row with control characters where quotes and dashes were meant"),
        (
            "t.csv",
            "prompt,completion\nquestion,Answer\na,b\n",
            "names of columns for its texts: a header that is learnt",
        ),
        (
            "t.jsonl",
            '{"prompt":"a","completion":"b","kto_tag":false}',
            "kto_tag is not read: answers that it calls bad",
        ),
    ],
)
def test_how_a_file_was_read_is_said_where_it_may_not_be_meant(check, name, data, warning):
    result = check(train=(name, data))
    assert result.code == ExitCode.OK
    assert [one for one in result.verdict.warnings if warning in one]


EMPTY_ROWS = "prompt;completion;note\r\na;b;\r\n;;\r\nc;d;\r\n;;\r\n;;\r\n"


@pytest.mark.parametrize(
    ("cell", "said"), [('"=""007"""', "quotes around its cells"), ("1.23E+10", "a number as spreadsheets shorten")]
)
def test_what_spreadsheets_make_of_numbers_is_warned_of(check, cell, said):
    warnings = check(train=("t.csv", f"prompt,completion\nWhat is it?,{cell}\n")).verdict.warnings
    assert any(warning.startswith(f"t.csv: the first row has {said}") for warning in warnings)


@pytest.mark.parametrize(
    ("data", "rows", "empty"),
    [
        (EMPTY_ROWS, 2, "3 rows of empty cells passed over (the first: line 3)"),
        ('prompt,completion\n"a\nb",b\n"",""\n', 1, "1 row of empty cells passed over (the first: line 4)"),
        ("prompt,completion,\n" + "a,b,\n" * 9000 + ",,\n", 9000, "(the first: line 9002)"),
    ],
)
def test_rows_of_empty_cells_that_spreadsheets_leave_are_passed_over_and_counted(check, data, rows, empty):
    result = check(train=("t.csv", data))
    assert result.code == ExitCode.OK
    assert (result.verdict.train.rows, result.verdict.train.bad_rows) == (rows, 0)
    assert [one for one in result.verdict.warnings if one.endswith(empty)]


def test_a_row_with_anything_in_it_is_none_of_empty_cells(check):
    result = check(train=("t.csv", "prompt,completion,note\na,b,\n,,x\n ,,\n"))
    assert result.code == ExitCode.DATASET_INVALID
    assert [problem.line for problem in result.verdict.train.problems] == [3, 4]


@pytest.mark.parametrize(
    ("row", "warning"),
    [
        ({"history": [["a", "b"]]}, "t.jsonl: column history is not read: earlier turns are left out"),
        ({"label": False}, "t.jsonl: column label is not read: answers that it calls bad are learnt like any other"),
        ({"images": ["a.png"]}, "t.jsonl: column images is not read: rows are learnt without what it shows"),
        ({"Video": "a.mp4"}, "t.jsonl: column Video is not read: rows are learnt without what it shows"),
        ({"Complex_CoT": "c"}, "t.jsonl: column Complex_CoT is not read: answers are learnt without it"),
        ({"weight": 0}, "t.jsonl: column weight is not read: all rows count the same"),
        (
            {"passage": "p"},
            "t.jsonl: column passage is not read: a question is learnt without the text that it is about",
        ),
        ({"split": "test"}, "t.jsonl: column split is not read: all rows of the file are taken, of whatever split"),
        ({"is_test": True}, "t.jsonl: column is_test is not read: all rows of the file are taken, of whatever split"),
    ],
)
def test_columns_that_say_more_of_an_answer_are_not_left_out_without_a_word(check, row, warning):
    data = json.dumps({"prompt": "a", "completion": "b"} | row)
    assert warning in check(train=("t.jsonl", data)).verdict.warnings


@pytest.mark.parametrize(
    ("asked", "answered", "warned"),
    [
        ("text {0}. Label: {1}", "{1}", True),
        ("text {0}\nAnswer: {1}.", "{1}", True),
        ("is {0} good or bad", "bad", False),
        ("{1} is said of {0}", "{1}", False),
        ("{0} {1}", "{0} {1}", False),
    ],
)
def test_questions_that_tell_their_answers_are_warned_of_where_all_do(check, asked, answered, warned):
    rows = [(number, ("good", "bad")[number % 2]) for number in range(12)]
    data = "".join(
        json.dumps({"prompt": asked.format(*row), "completion": answered.format(*row)}) + "\n" for row in rows
    )
    if "good or bad" in asked:
        data += json.dumps({"prompt": "is 13 good or bad", "completion": "good"}) + "\n"
    said = "t.jsonl: all 12 rows tell the answer at the end of the question: a model learns to repeat it"
    assert (said in check(train=("t.jsonl", data)).verdict.warnings) is warned


@pytest.mark.parametrize(
    ("answered", "warned"), [("{0}\nyes {1}", True), ("{0}", False), ("yes, {0}", False), ("yes", False)]
)
def test_answers_that_begin_with_their_questions_are_warned_of_where_all_do(check, answered, warned):
    """As pipelines of transformers give them, and older sets of preferences."""
    asked = [f"Which is {number}?" for number in range(12)]
    rows = [{"prompt": one, "completion": answered.format(one, number)} for number, one in enumerate(asked)]
    result = check(train=("t.jsonl", "".join(json.dumps(row) + "\n" for row in rows)))
    assert any("all 12 rows have the question before the answer" in one for one in result.verdict.warnings) is warned


@pytest.mark.parametrize(("answer", "told"), [(" b", True), ("\nb", True), ("b ", False)])
def test_white_space_before_the_first_answer_is_told(check, answer, told):
    found = check(train=("t.jsonl", json.dumps({"prompt": "a", "completion": answer}))).verdict.warnings
    assert any(one.startswith("t.jsonl: the first row has white space before its answer") for one in found) is told


@pytest.mark.parametrize(
    ("text", "warned"),
    [
        (r"Dear Ann,\n\nThanks.", True),
        (r"- a\n- b", True),
        (r"$\nabla f \neq 0$ in C:\new", False),
        ('print("a\\n")\nprint("b\\n")', False),
        (r"a\\n- b", False),
        (r'print("a\n")', False),
        ("a\nb", False),
    ],
)
@pytest.mark.parametrize("column", ["prompt", "completion"])
def test_line_breaks_that_were_escaped_twice_are_told(check, text, warned, column):
    rows = [{"prompt": "a\nb", "completion": "c"}, {"prompt": "a", "completion": "b", column: text}]
    found = check(train=("t.jsonl", "".join(f"{json.dumps(row)}\n" for row in rows))).verdict.warnings
    assert [
        one for one in found if r"1 row with line breaks or tabs written out as \n or \t (the first: line 2)" in one
    ] or not warned
    assert warned or not [one for one in found if "written out" in one]


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


@pytest.mark.parametrize("word", ["nan", "#N/A", "None", "\\N"])
def test_texts_that_mean_no_value_are_warned_of(check, word):
    table = f"prompt,completion\na,{word}s\nb,{word}\n{word},c\n{word},{word}\n"
    talk = {"messages": [{"role": "user", "content": word}, {"role": "assistant", "content": "a"}]}
    result = check(train=("t.csv", table), test=("v.jsonl", json.dumps(talk)), validation=("w.jsonl", GOOD))
    found = [one.partition(" with ")[0] for one in result.verdict.warnings if "means no value" in one]
    assert found == ["t.csv: 3 rows", "v.jsonl: 1 row"]
    assert any("(the first: line 3)" in one for one in result.verdict.warnings)


@pytest.mark.parametrize("word", ["TODO", "todo", "Tbd", "FIXME:", "…", "Placeholder"])
def test_texts_that_are_still_to_be_written_are_warned_of(check, word):
    table = f"prompt,completion\na,{word} list\nb,{word}\n{word},c\n"
    talk = {"messages": [{"role": "user", "content": word}, {"role": "assistant", "content": "a"}]}
    result = check(train=("t.csv", table), test=("v.jsonl", json.dumps(talk)), validation=("w.jsonl", GOOD))
    assert result.code == ExitCode.OK
    found = [one.partition(" with ")[0] for one in result.verdict.warnings if "placeholder for text" in one]
    assert found == ["t.csv: 2 rows", "v.jsonl: 1 row"]


def test_totals_that_a_spreadsheet_has_below_its_columns_are_warned_of(check):
    table = "prompt,completion\nthe total of it,Total\na,12\nTotal,30\nGrand total:,30\nTOTAL,5\n"
    result = check(train=("t.csv", table))
    (found,) = [one for one in result.verdict.warnings if "total" in one]
    assert found.startswith("t.csv: 3 rows with a question that is a total")
    assert "(the first: line 4)" in found


@pytest.mark.parametrize(
    ("data", "warning"),
    [
        ("prompt,completion\na,b\nc,c\n", "1 row with an answer that is the question (the first: line 3)"),
        (
            "prompt,completion\na,stra\ufffde\n",
            "1 row with the sign for a character that was lost (U+FFFD) (the first: ",
        ),
        (
            "prompt,completion\na,schÃ¶n\nItâ€™s,b\nKOÅ\x81Ã“W,b\nNÃO,Â!\n",
            "3 rows with letters such as Ã¼ where ü was meant (the first: line 2): the text was read in another encodi",
        ),
        ('prompt, completion\n"a", "b"\n', "the first row has quotes around its cells, which are learnt with them"),
        ("prompt,completion\n'a','b'\n", "the first row has quotes around its cells, which are learnt with them"),
    ],
)
def test_texts_that_are_probably_not_meant_so_are_warned_of(check, data, warning):
    table, talk = check(train=("t.csv", data)), check(train=("t.jsonl", _as_messages(data)))
    assert [one for one in table.verdict.warnings if warning in one]
    of_tables = "quotes" in warning
    assert bool([one for one in talk.verdict.warnings if warning.partition(" (")[0] in one]) != of_tables
    assert (table.code, talk.code) == (ExitCode.OK, ExitCode.OK)


def _as_messages(table: str) -> str:
    rows = [row.split(",") for row in table.splitlines()[1:]]
    talks = [[{"role": "user", "content": one}, {"role": "assistant", "content": other}] for one, other in rows]
    return "".join(json.dumps({"messages": talk}) + "\n" for talk in talks)


def test_an_escaped_nul_is_warned_of_with_its_line_and_learnt_as_it_stands(check):
    nul = "t.jsonl: 1 row with a NUL character in the text (\\u0000) (the first: line 3); it is learnt like any other"
    result = check(train=("t.jsonl", GOOD + json.dumps({"prompt": "a", "completion": "b\0"}) + "\n"))
    assert (result.code, result.verdict.train.rows) == (ExitCode.OK, 3)
    assert nul in result.verdict.warnings
    talk = GOOD + json.dumps({"messages": [{"role": "user", "content": "\0a"}, {"role": "assistant", "content": "b"}]})
    assert nul in check(train=("t.jsonl", talk)).verdict.warnings


@pytest.mark.parametrize(
    ("rejected", "warning"),
    [("x\0", "a NUL character"), ("x\ufffd", "a character that was lost"), ("nan", "mostly means no value")],
)
def test_the_worse_of_two_answers_is_looked_at_too(check, rejected, warning):
    pair = json.dumps({"prompt": "a", "chosen": "b", "rejected": rejected})
    result = check(train=("t.jsonl", pair), spec={"preference": {}})
    assert [one for one in result.verdict.warnings if warning in one]


@pytest.mark.parametrize("column", ["system_prompt", "System", "system message"])
def test_a_system_message_by_another_name_is_not_left_out_without_a_word(check, column):
    data = json.dumps({"prompt": "a", "completion": "b", column: "c"})
    warning = f"t.jsonl: column {column} is not read: is it the system message, map it with columns.system"
    assert warning in check(train=("t.jsonl", data)).verdict.warnings


def test_a_plain_file_has_no_warning_of_how_it_was_read(check):
    result = check(train=("t-00000-of-00001.jsonl", GOOD), validation=("v.csv", "prompt,completion\na,b\n"))
    assert [one for one in result.verdict.warnings if not one.startswith("tokens were not counted")] == []


@pytest.mark.parametrize(
    ("prompt", "below", "how"),
    [
        ("instruction", "input", "where instruction needs it, map neither prompt nor completion"),
        ("Instruction", "Input", "where Instruction needs it, write both into one column"),
        ("question", "context", "where question needs it, write both into one column"),
    ],
)
def test_what_a_prompt_may_need_beside_it_is_not_left_out_without_a_word(check, prompt, below, how):
    data = json.dumps({prompt: "a", below: "b", "output": "c"})
    columns = {"prompt": prompt, "completion": "output"}
    result = check(train=("t.jsonl", data), spec={"dataset": {"columns": columns}})
    assert any(one.startswith(f"t.jsonl: column {below} is not read: {how}") for one in result.verdict.warnings)


def test_what_a_conversation_may_need_beside_it_is_not_left_out_without_a_word(check):
    talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    found = check(train=("t.jsonl", json.dumps({"context": "c", "messages": talk}))).verdict.warnings
    assert "t.jsonl: column context is not read: where messages need it, write it into a message" in found


def test_one_answer_to_everything_is_warned_of(check):
    rows = [{"prompt": f"p{number}", "completion": "train"} for number in range(20)]
    warned = "t.jsonl: all 20 rows have the same answer: a model learns to say it whatever it is asked"
    assert warned in check(train=("t.jsonl", as_lines(rows))).verdict.warnings
    for others in (rows[:5], [*rows[:19], {"prompt": "p", "completion": "test"}]):
        assert "the same answer" not in " ".join(check(train=("t.jsonl", as_lines(others))).verdict.warnings)


def as_lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.mark.parametrize("end", ["\n\n###\n\n", " ->", "###"])
@pytest.mark.parametrize("beside", [[], [{"role": "system", "content": "s"}]], ids=["pair", "conversation"])
def test_marks_behind_questions_that_openais_old_models_wanted_are_warned_of(check, end, beside):
    row = {"prompt": f"a{end}", "completion": " b END"}
    if beside:
        row = {"messages": [*beside, {"role": "user", "content": f"a{end}"}, {"role": "assistant", "content": " b"}]}
    result = check(train=("t.jsonl", json.dumps(row) + "\n" + GOOD))
    assert result.code == ExitCode.OK
    (said,) = [one for one in result.verdict.warnings if "OpenAI" in one]
    assert said.startswith("t.jsonl: the first row has ### or -> after its question")
    assert "remove it, and a mark such as END after answers" in said


@pytest.mark.parametrize("end", ["\n\nAssistant:", "\n### Response:\n", "\nAI: "])
def test_names_of_who_is_to_answer_behind_questions_are_warned_of(check, end):
    """As Anthropic's old models and Alpaca's template want them: a chat template would write its own behind it."""
    row = {"prompt": f"Human: What colour is the sky?{end}", "completion": "blue"}
    (warning, _) = check(train=("t.jsonl", f"{json.dumps(row)}\n")).verdict.warnings
    assert "the first row has marks of a chat in its text, such as Assistant: after its question" in warning


@pytest.mark.parametrize(
    ("lengths", "told"),
    [((255, 255, 255, 9), True), ((255, 255, 256, 9), False), ((255,) * 4, False), ((32_767, 9), True)],
)
def test_texts_that_end_where_cells_are_cut_are_warned_of(check, tiny_model, lengths, told):
    rows = [{"prompt": f"{number}", "completion": f"{number}".ljust(most, "a")} for number, most in enumerate(lengths)]
    data = "prompt,completion\n" + "".join(f"{','.join(row.values())}\n" for row in rows)
    warnings = check("--model-cache", tiny_model, train=("t.csv", data)).verdict.warnings
    said = (
        f"t.csv: {lengths.count(max(lengths))} answer{'s' * (len(lengths) > 2)} of exactly {max(lengths):,} characters"
    )
    assert any(warning.startswith(said) for warning in warnings) is told


@pytest.mark.parametrize("asked", ["### Task\nAdd a -> b.", "a->b", "What is # 5?"])
def test_the_same_marks_within_a_question_are_not(check, asked):
    result = check(train=("t.jsonl", json.dumps({"prompt": asked, "completion": "### b ->"}) + "\n"))
    assert not [one for one in result.verdict.warnings if "OpenAI" in one]
