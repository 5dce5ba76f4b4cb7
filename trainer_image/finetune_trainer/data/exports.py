"""Files as other programs export them, known by the names of their columns: the command that makes rows of each."""

from collections.abc import Collection

from finetune_trainer.data.jq import by_jq, field, key

_OF_CHATGPT = (
    "[.mapping as $all | .current_node | recurse($all[.].parent; . != null) | $all[.].message "
    '| select(.author.role | IN("user", "assistant")) | {role: .author.role, content: ([.content.parts[]? | strings] '
    '| join("\\n"))} | select(.content != "")] | reverse | until(. == [] or .[-1].role == "assistant"; .[:-1]) '
    "| select(. != []) | {messages: .}"
)
_OF_CLAUDE = (
    '[.chat_messages[] | {role: .sender, content: .text} | select(.content != "")] '
    '| until(. == [] or .[-1].role == "assistant"; .[:-1]) | select(. != []) | {messages: .}'
)
_OF_LABEL_STUDIO = (
    "{prompt: .data.text, completion: (.annotations[0].result[0].value | .choices // .text "
    '| if type == "array" then .[0] else . end)} | select(.completion != null)'
)
_OF_BATCHES = (
    "jq -nc 'reduce inputs as $one ({}; .[$one.custom_id] += ($one.body // $one.params // {answer: "
    "($one.response.body.choices[0].message // $one.result.message)})) | .[] | select(.messages and .answer.content) "
    "| {system, messages: (.messages + [.answer | {role, content}])}' REQUESTS.jsonl RESULTS.jsonl > ROWS.jsonl"
)
"""Two files of a batch, of OpenAI, Azure or Anthropic, in any order: what was asked, and what was answered."""
_IN_BATCHES = frozenset({"body", "params", "response", "result"})
_TURNS = (
    r'def turns: [splits("\n\n(?=(?:Human|Assistant):)") | select(. != "") '
    r'| capture("^(?<from>Human|Assistant): ?(?<value>(?s:.*))$") | .from |= ascii_downcase]; '
)
"""Of jq: messages of a dialogue that is written as text, as Anthropic's HH-RLHF has them."""

_EXPORTS: tuple[tuple[frozenset[str], str, str], ...] = (
    (frozenset({"mapping", "current_node"}), _OF_CHATGPT, "makes a row of each conversation of ChatGPT"),
    (frozenset({"uuid", "chat_messages"}), _OF_CLAUDE, "makes a row of each conversation of Claude"),
    (
        frozenset({"annotations", "data"}),
        _OF_LABEL_STUDIO,
        "takes the text and its first label out of tasks of Label Studio; another field than text is .data.NAME",
    ),
    (
        frozenset({"fields", "responses"}),
        '{prompt: .fields.NAME, completion: (.responses.NAME | if type == "array" then .[0] else . end | .value)} '
        "| select(.completion)",
        "takes a field and the first response to a question out of records of Argilla",
    ),
)


def of_export(names: Collection[str], file_format: str) -> str | None:
    """How rows come of a file with these columns; None of one that no program is known to write."""
    if not file_format.startswith("JSON"):
        return None
    if "custom_id" in names and not _IN_BATCHES.isdisjoint(names):
        how = "makes a row of each request of a batch and its answer, where their two files are both at hand"
        return f"`{_OF_BATCHES}` {how}."
    known = (one for one in _EXPORTS if one[0].issubset(names))
    return next((f"`{by_jq(file_format, program)}` {does}." for _, program, does in known), None)


def of_dialogues(chosen: str, rejected: str, file_format: str) -> str:
    """What to do with two whole dialogues a row whose prompt is in neither column: they may be written as text."""
    step = (
        "Write what both answer into a column prompt, or write chosen and rejected as lists of messages, "
        '[{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]; text has no turns.'
    )
    if not file_format.startswith("JSON"):
        return step
    both = ", ".join(f"{key(name)}: ({field(name)} | turns)" for name in (chosen, rejected))
    how = by_jq(file_format, f"{{{both}}}").replace("jq -c '", f"jq -c '{_TURNS}", 1)
    return f"{step} `{how}` does it with dialogues of Human: and Assistant:, as in HH-RLHF."
