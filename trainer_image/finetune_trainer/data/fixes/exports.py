"""Files as other programs export them, known by the names of their columns: the command that makes rows of each."""

from collections.abc import Collection, Mapping
from typing import Any

from finetune_trainer.data.fixes.jq import by_jq, by_jq_of_all, field, key

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
    "($one.response.body.choices[0].message // $one.result.message // "
    '[$one.response.body.output[]? | select(.type == "message")][-1])})) | .[] '
    '| (.messages // (.input | if type == "string" then [{role: "user", content: .}] else . end)) as $asked '
    "| select($asked and .answer.content) | {system: (.system // .instructions), messages: ($asked + [.answer "
    "| {role, content}])}' REQUESTS.jsonl RESULTS.jsonl > ROWS.jsonl"
)
"""Two files of a batch, of OpenAI, Azure or Anthropic, in any order: what was asked, and what was answered."""
_IN_BATCHES = frozenset({"body", "params", "response", "result"})
_TURNS = (
    r'def turns: [splits("\n\n(?=(?:Human|Assistant):)") | select(. != "") '
    r'| capture("^(?<from>Human|Assistant): ?(?<value>(?s:.*))$") | .from |= ascii_downcase]; '
)
"""Of jq: messages of a dialogue that is written as text, as Anthropic's HH-RLHF has them."""

_OF_PRODIGY = 'select(.answer == "accept") | {prompt: .text, completion: (.label // .accept[0])} | select(.completion)'
_WITH_HISTORY = (
    '{system, messages: ([.history[]? | {role: "user", content: .[0]}, {role: "assistant", content: .[1]}] + [{role: '
    r'"user", content: ([.instruction, .input] | map(select(. != null and . != "")) | join("\n\n"))}, '
    '{role: "assistant", content: .output}])}'
)
_OF_COHERE = (
    '{system: .preamble, messages: ([.chat_history[]? | {role, content: .message}] + [{role: "user", content: '
    '.message}, {role: "assistant", content: (.response // .text | if type == "object" then .text else . end)}])}'
)
_OF_SEGMENTS = '{messages: [.segments[] | {role: (if .label then "assistant" else "user" end), content: .text}]}'
_OF_ULTRACHAT = '{messages: [.data | to_entries[] | {role: ["user", "assistant"][.key % 2], content: .value}]}'
_OF_CHOICES = (
    r'{prompt: ([.question, (.choices | if type == "object" then [.label, .text] | transpose[] | "\(.[0]). \(.[1])" '
    r'else to_entries[] | "\([65 + .key] | implode). \(.value)" end)] | join("\n")), '
    'completion: ((.answer // .answerKey) | if type == "number" then [65 + .] | implode else . end)}'
)
_CHOSEN = "puts the choices below each question, by letters, and answers with the letter"
_OF_TREES = (
    'INDEX(.message_id) as $all | map(select(.role == "assistant")) as $said | ($said | map($all[.parent_id // ""]'
    ".parent_id // empty) | INDEX(.)) as $before | $said[] | select($before[.message_id] | not) | {messages: "
    '([recurse($all[.parent_id // ""]; . != null)] | reverse | map({role, content: .text}))}'
)
_OF_SLACK = (
    "group_by(.thread_ts // .ts)[] | [.[] | select(.text) | {role: "
    '(if .user == "ANSWERER" then "assistant" else "user" end), content: .text}] '
    '| until(. == [] or .[-1].role == "assistant"; .[:-1]) | select(. != []) | {messages: .}'
)

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
    *(
        (frozenset({"text", "answer", mark}), _OF_PRODIGY, "takes what was accepted out of tasks of Prodigy")
        for mark in ("_input_hash", "_task_hash")
    ),
    (
        frozenset({"instruction", "output", "history"}),
        _WITH_HISTORY,
        "makes conversations, the earlier turns before the instruction",
    ),
    (frozenset({"message", "chat_history"}), _OF_COHERE, "makes conversations, the earlier turns before the message"),
    *((frozenset({"question", "choices", key}), _OF_CHOICES, _CHOSEN) for key in ("answer", "answerKey")),
    (frozenset({"segments"}), _OF_SEGMENTS, "makes a turn of each segment of Axolotl, by whether it is to be learnt"),
    (frozenset({"message_1", "message_2"}), "{prompt: .message_1, completion: .message_2}", "takes both messages"),
)
_OF_ALL: tuple[tuple[frozenset[str], str, str], ...] = (
    (
        frozenset({"message_id", "parent_id", "role", "text"}),
        _OF_TREES,
        "makes a row of each way through a tree of messages to one of its last answers",
    ),
    (
        frozenset({"type", "user", "text", "ts"}),
        _OF_SLACK,
        "makes a row of each thread of Slack, with the id of who answers for ANSWERER",
    ),
)
"""Those whose rows are single messages."""


def of_export(names: Collection[str], first: Mapping[str, Any], file_format: str) -> str | None:
    """How rows come of a file with these columns; None of one that no program is known to write.

    `first`: fields of the first row.
    """
    if "custom_id" in names and not _IN_BATCHES.isdisjoint(names):
        how = "makes a row of each request of a batch and its answer, where their two files are both at hand"
        return f"`{_OF_BATCHES}` {how}."
    if set(names) == {"id", "data"} and isinstance(first.get("data"), list):
        return f"`{by_jq(file_format, _OF_ULTRACHAT)}` makes messages of texts that take turns, the user's first."
    for command, exports in ((by_jq, _EXPORTS), (by_jq_of_all, _OF_ALL)):
        for known, program, does in exports:
            if known.issubset(names):
                return f"`{command(file_format, program)}` {does}."
    return None


def of_dialogues(chosen: str, rejected: str, file_format: str) -> str:
    """What to do with two whole dialogues a row whose prompt is in neither column: they may be written as text."""
    step = (
        "Write what both answer into a column prompt, or write chosen and rejected as lists of messages, "
        '[{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]; text has no turns.'
    )
    both = ", ".join(f"{key(name)}: ({field(name)} | turns)" for name in (chosen, rejected))
    how = by_jq(file_format, f"{_TURNS}{{{both}}}")
    return f"{step} `{how}` does it with dialogues of Human: and Assistant:, as in HH-RLHF."
