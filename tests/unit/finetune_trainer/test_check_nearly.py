"""Files that are nearly what is read: what is said of each leads, when it is followed, to exactly the rows meant."""

import json
import shutil
import subprocess

import pytest

from finetune_api.exit_codes import ExitCode
from tests.unit.finetune_trainer.following import followed

ROWS = [
    {"prompt": "It's \"so\", isn't it?", "completion": "yes,\nand\tno;\tor"},
    {"prompt": "// no # comment, {a: b(c)},", "completion": r"C:\new \n"},
    {"prompt": "Größe; 5|6", "completion": "“schön”"},
]
TEXTS = [list(row.values()) for row in ROWS]
LINES = "".join(f"{json.dumps(row)}\n" for row in ROWS)
INDENTED = [json.dumps(row, indent=2) for row in ROWS]


def in_single_quotes(text):
    return "'{}'".format(json.dumps(text, ensure_ascii=False)[1:-1].replace(r"\"", '"').replace("'", r"\'"))


def of_javascript(row):
    prompt, completion = in_single_quotes(row["prompt"]), json.dumps(row["completion"])
    return f"\t{{prompt: {prompt}, completion: {completion},}} // it's a row\n"


def of_shell(row):
    return f'{{ "_id" : ObjectId("65a"), {json.dumps(row)[1:-1]}, "at" : new Date(ISODate("2024-01-01T00:00:00Z")) }}\n'


def as_outfile(rows, mark="\t"):
    """As SELECT ... INTO OUTFILE of MySQL, with a header."""
    escaped = ([one.translate({ord(char): f"\\{char}" for char in f"\\\n{mark}"}) for one in row] for row in rows)
    return "".join(f"{mark.join(row)}\n" for row in [["prompt", "completion"], *escaped])


TYPOGRAPHIC = "prompt,completion\n" + "".join(f"“{number}, or ”“ not”,„{number} “\r\n" for number in range(3))
TALKS = [{"user": one, "assistant": two} for one, two in TEXTS]


def as_structs(message, escaped=""):
    """A table with conversations as a query shows them."""
    escapes = {ord(one): f"\\{one}" for one in escaped}
    shown = (", ".join(message % (who, said.translate(escapes)) for who, said in talk.items()) for talk in TALKS)
    return "messages,id\n" + "".join('"[{}]",{}\n'.format(one.replace('"', '""'), 1) for one in shown)


def as_lines(rows):
    return "".join(f"{json.dumps(row)}\n" for row in rows)


def of_spans(talk):
    parts = {who: [{"role": who, "parts": [{"type": "text", "content": said}]}] for who, said in talk.items()}
    return {"gen_ai.input.messages": parts["user"], "gen_ai.output.messages": parts["assistant"]}


def of_dynamo(talk):
    messages = [{"M": {"role": {"S": who}, "content": {"S": said}}} for who, said in talk.items()]
    return {"Item": {"messages": {"L": messages}, "id": {"N": "1"}, "tags": {"SS": ["a", "b"]}, "none": {"L": []}}}


def of_notion(kind, said):
    return {"id": "x", "type": kind, kind: [{"type": "text", "plain_text": one} for one in (said[:3], said[3:])]}


def of_a_page(row):
    told = {"prompt": of_notion("title", row["prompt"]), "completion": of_notion("rich_text", row["completion"])}
    return {"object": "page", "id": "1", "properties": told}


def of_intercom(row):
    parts = [{"body": None, "author": {"type": "bot"}}, {"body": row["completion"], "author": {"type": "admin"}}]
    source = {"body": f"<p>{row['prompt']}</p>", "author": {"type": "user"}}
    return {"type": "conversation", "source": source, "conversation_parts": {"conversation_parts": parts}}


def of_discord(who, said):
    return {"id": "1", "type": "Default", "content": said, "author": {"id": "1", "name": who, "roles": []}}


def of_telegram(who, said):
    return {"id": 1, "type": "message", "from": who, "text": [said[:3], {"type": "bold", "text": said[3:]}]}


def a_chat(message):
    said = [message(who, text) for pair in TEXTS for who, text in zip(("Bo", "ANSWERER"), pair, strict=True)]
    said = [{**message("ANSWERER", "Hello"), "id": 0}, *said, message("Eve", "thanks")]
    return json.dumps({"channel": {"name": "c"}, "messages": said})


NEARLY = {
    "JavaScript": ("t.json", f"[\n{''.join(map(of_javascript, ROWS)).replace(' //', ', //')}]"),
    "JavaScript in lines": ("t.jsonl", "".join(map(of_javascript, ROWS))),
    "a shell of MongoDB": ("t.json", "".join(map(of_shell, ROWS))),
    "objects of several lines with commas": ("t.json", ",\n".join(INDENTED)),
    "several objects in some lines": ("t.jsonl", LINES.replace("\n", "", 1)),
    "YAML": (
        "t.yaml",
        "".join(f"- prompt: {json.dumps(one)}\n  completion: {json.dumps(two)}\n" for one, two in TEXTS),
    ),
    "documents of YAML": ("t.jsonl", "".join(f"---\n{one}\n" for one in INDENTED)),
    "structs of Athena": ("t.csv", as_structs("{role=%s, content=%s}")),
    "structs of Spark": ("t.csv", as_structs("{%s, %s}")),
    "structs of DuckDB": ("t.csv", as_structs("{'role': %s, 'content': %s}")),
    "structs of DuckDB, in quotes": ("t.csv", as_structs("{'role': %s, 'content': '%s'}", "\\'")),
    "spans of OpenTelemetry": ("t.jsonl", as_lines(map(of_spans, TALKS))),
    "lists of DynamoDB": ("t.jsonl", as_lines(map(of_dynamo, TALKS))),
    "a chat of Discord": ("t.json", a_chat(of_discord)),
    "a chat of Telegram": ("t.json", a_chat(of_telegram)),
    "conversations of Intercom": ("t.jsonl", as_lines(map(of_intercom, ROWS))),
    "pages of Notion": ("t.json", json.dumps(list(map(of_a_page, ROWS)))),
    "arrays behind one another": ("t.json", "".join(json.dumps([row]) for row in ROWS)),
    "OUTFILE": ("t.tsv", as_outfile(TEXTS)),
    "OUTFILE with commas": ("t.csv", as_outfile(TEXTS, ",")),
}


@pytest.mark.parametrize("what", NEARLY)
def test_the_next_step_leads_to_exactly_the_rows(check, tmp_path, what):
    name, data = NEARLY[what]
    refused = check(train=(name, data)).verdict
    assert not refused.valid
    made = followed(refused.next_step, tmp_path, FILE=data)
    (path,) = tmp_path.glob("ROWS.*")
    result = check(train=(f"made{path.suffix}", made), validation=("v.jsonl", LINES))
    assert (result.code, result.verdict.train.rows) == (ExitCode.OK, 3), result.err
    assert result.verdict.shared_rows[0].rows == 3


def test_a_list_by_the_name_of_a_type_that_has_no_plain_text_is_not_taken_out_of_its_object(check):
    data = as_lines([{"type": "messages", "messages": [{"role": "user", "content": "a"}]}] * 2)
    assert "within their types" not in (check(train=("t.jsonl", data)).verdict.next_step or "")


@pytest.mark.skipif(not shutil.which("jq"), reason="jq is not installed here")
@pytest.mark.parametrize("lost", [1, 9, 60])
def test_of_an_array_that_breaks_off_the_whole_rows_are_kept(check, tmp_path, lost):
    data = json.dumps(ROWS)[:-lost]
    step = check(train=("t.json", data)).verdict.next_step
    with pytest.raises(subprocess.CalledProcessError):  # jq says where
        followed(step, tmp_path, FILE=data)
    made = list(map(json.loads, (tmp_path / "ROWS.jsonl").read_text().splitlines()))
    assert made == ROWS[: 3 if lost == 1 else 2]


def test_last_cells_that_spreadsheets_leave_out_are_added(check, tmp_path):
    data = "prompt,completion,note,by\na?,b\nc?,d\n"
    made = followed(check(train=("t.csv", data)).verdict.next_step, tmp_path, FILE=data)
    assert made == "prompt,completion,note,by\na?,b,,\nc?,d,,\n"


@pytest.mark.parametrize(
    ("behind", "told"),
    [(" (required)", True), ("*", True), ("\n[Text]", True), (": *", True), (" (en)", True), (" (Peter Smith)", False)],
)
def test_names_of_columns_are_known_by_what_stands_before_a_mark_that_forms_have(check, behind, told):
    verdict = check(train=("t.csv", f'"prompt{behind}","completion{behind}"\na?,b\n')).verdict
    assert (f"prompt{behind.replace(chr(10), ' ')}, completion" in verdict.message) is told
    assert (f"{{prompt: {json.dumps(f'prompt{behind}')}, " in verdict.next_step) is told


@pytest.mark.parametrize(
    ("header", "named"),
    [
        ("Questions,Answers", "{prompt: Questions, completion: Answers}"),
        ("en,de", "columns are en, de"),
        ("Guten Tag,de", "header may be missing"),
    ],
)
def test_usual_headers_are_names_and_no_data(check, header, named):
    verdict = check(train=("t.csv", f"{header}\na?,b\n")).verdict
    assert named in f"{verdict.message} {verdict.next_step}"


@pytest.mark.parametrize("run", [" ", "*", ":"])
def test_a_name_with_a_long_run_of_marks_is_read_in_linear_time(check, run):
    """It would take many minutes."""
    assert not check(train=("t.jsonl", as_lines([{f"a{run * 100_000}b": "c"}]))).verdict.valid


def test_cells_of_hive_without_a_header_are_told_and_not_taken_for_one_text(check, tmp_path):
    data = 'a, "b"?\1c\n"d, e"?\1"f\n'
    refused = check(train=("t.csv", data)).verdict
    assert "its cells are separated by '\\x01'" in refused.message
    assert followed(refused.next_step, tmp_path, FILE=data) == '"a, ""b""?",c\n"""d, e""?","""f"\n'


@pytest.mark.parametrize(
    ("name", "speakers", "is_group"),
    [
        ("speaker", ("Bo", "ANSWERER"), True),
        ("role", ("Bo", "ANSWERER", "Eve"), True),
        ("role", ("system", "customer", "ANSWERER"), False),
    ],
)
def test_a_conversation_in_a_table_is_a_group_chat_if_nobody_has_a_role_or_more_than_two_speak(
    check, tmp_path, name, speakers, is_group
):
    said = json.dumps([{name: who, "content": f"by {who}"} for who in speakers])
    data = 'messages,id\n"{}",1\n'.format(said.replace('"', '""'))
    step = check(train=("t.csv", data)).verdict.next_step
    assert step.startswith("The file is one conversation") is is_group
    if is_group:
        assert step.endswith("its answer."), "it is not cut off"
        assert json.loads(followed(step, tmp_path, FILE=data)) == {"prompt": "by Bo", "completion": "by ANSWERER"}


def test_messages_that_are_a_number_are_not_called_text(check):
    assert "as text within text" not in (check(train=("t.jsonl", '{"messages": 5}\n')).verdict.next_step or "")


@pytest.mark.parametrize("header", ["prompt,completion", "“prompt”,“completion”"])
def test_typographic_quotes_around_cells_are_made_plain_and_those_within_are_left(check, tmp_path, header):
    cells = [f"“{number}, or ”“ not”,„{number}“\r\n" for number in range(3)]
    data = "\n".join([header, *cells])
    made = followed(check(train=("t.csv", data)).verdict.next_step, tmp_path, FILE=data)
    want = "".join(json.dumps({"prompt": f"{one}, or ”“ not", "completion": str(one)}) + "\n" for one in range(3))
    result = check(train=("made.csv", made), validation=("v.jsonl", want))
    assert result.verdict.shared_rows[0].rows == 3, result.err


def test_a_header_that_stands_in_a_file_again_behind_a_byte_order_mark_is_left_out(check, tmp_path):
    data = "prompt,completion\na,b\n\ufeffPrompt,completion\nc,d\n"
    made = followed(check(train=("t.csv", data)).verdict.next_step, tmp_path, FILE=data)
    assert made == "prompt,completion\na,b\nc,d\n"


def test_another_speaker_in_a_list_of_structs_is_no_part_of_what_was_said_before(check, tmp_path):
    data = 'messages,id\n"[{user, a}, {tool, b}, {assistant, c}]",1\n'
    made = followed(check(train=("t.csv", data)).verdict.next_step, tmp_path, FILE=data)
    assert [one["content"] for one in json.loads(made)["messages"]] == ["a", "b", "c"]


@pytest.mark.parametrize("prompt", [r"$\int f(x)\,dx$ of $\nu$", r"C:\dir\,x", r"a & b \\\\,c"])
def test_a_backslash_before_a_comma_is_no_escape_where_others_are_of_formulas_or_paths(check, prompt):
    refused = check(train=("t.csv", f"prompt,completion\n{prompt},a\n")).verdict
    assert not refused.valid
    assert "backslash" not in f"{refused.message} {refused.next_step}"
