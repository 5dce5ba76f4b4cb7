"""Files exported by other programs, recognized by their column names: a command for each that makes rows of them.

Also compared answers: two answers and a column naming the winner, or a list of answers with scores.
"""

from collections.abc import Collection, Iterator, Mapping
from itertools import chain
from typing import Any

from finetune_trainer.data.fixes.column_names import may_be_shown
from finetune_trainer.data.fixes.jq import field, jq_all, jq_rows, key

_CHATGPT = (
    "[.mapping as $all | .current_node | recurse($all[.].parent; . != null) | $all[.].message "
    '| select(.author.role | IN("user", "assistant")) | {role: .author.role, content: ([.content.parts[]? | strings] '
    '| join("\\n"))} | select(.content != "")] | reverse | until(. == [] or .[-1].role == "assistant"; .[:-1]) '
    "| select(. != []) | {messages: .}"
)
_CLAUDE = (
    '[.chat_messages[] | {role: .sender, content: .text} | select(.content != "")] '
    '| until(. == [] or .[-1].role == "assistant"; .[:-1]) | select(. != []) | {messages: .}'
)
_LABEL_STUDIO = (
    "{prompt: .data.text, completion: (.annotations[0].result[0].value | .choices // .text "
    '| if type == "array" then .[0] else . end)} | select(.completion != null)'
)
_BATCHES = (
    "jq -nc 'reduce inputs as $one ({}; .[$one.custom_id] += ($one.body // $one.params // {answer: "
    "($one.response.body.choices[0].message // $one.result.message // "
    '[$one.response.body.output[]? | select(.type == "message")][-1])})) | .[] '
    '| (.messages // (.input | if type == "string" then [{role: "user", content: .}] else . end)) as $asked '
    "| select($asked and .answer.content) | {system: (.system // .instructions), messages: ($asked + [.answer "
    "| {role, content}])}' REQUESTS.jsonl RESULTS.jsonl > ROWS.jsonl"
)
"""jq: joins two batch files of OpenAI, Azure or Anthropic in any order: requests, and their results."""
_IN_BATCHES = frozenset({"body", "params", "response", "result"})
_TURNS = (
    r'def turns: [splits("\n\n(?=(?:Human|Assistant):)") | select(. != "") '
    r'| capture("^(?<from>Human|Assistant): ?(?<value>(?s:.*))$") | .from |= ascii_downcase]; '
)
"""jq: splits a dialogue in one text into messages, as in Anthropic's HH-RLHF."""

_PRODIGY = 'select(.answer == "accept") | {prompt: .text, completion: (.label // .accept[0])} | select(.completion)'
_WITH_HISTORY = (
    '{system, messages: ([.history[]? | {role: "user", content: .[0]}, {role: "assistant", content: .[1]}] + [{role: '
    r'"user", content: ([.instruction, .input] | map(select(. != null and . != "")) | join("\n\n"))}, '
    '{role: "assistant", content: .output}])}'
)
_COHERE = (
    '{system: .preamble, messages: ([.chat_history | if type == "string" then fromjson? else . end | .[]? | '
    '{role, content: .message}] + [{role: "user", content: '
    '.message}, {role: "assistant", content: (.response // .text | if type == "object" then .text else . end)}])}'
)
_ULTRACHAT = '{messages: [.data | to_entries[] | {role: ["user", "assistant"][.key % 2], content: .value}]}'
_CHOICES = (
    r'{prompt: ([.question, (.choices | if type == "object" then [.label, .text] | transpose[] | "\(.[0]). \(.[1])" '
    r'else to_entries[] | "\([65 + .key] | implode). \(.value)" end)] | join("\n")), '
    'completion: ((.answer // .answerKey) | if type == "number" then [65 + .] | implode else . end)}'
)
_CHOSEN = "puts the choices below each question, by letters, and answers with the letter"
_TREES = (
    'INDEX(.message_id) as $all | map(select(.role == "assistant")) as $said | ($said | map($all[.parent_id // ""]'
    ".parent_id // empty) | INDEX(.)) as $before | $said[] | select($before[.message_id] | not) | {messages: "
    '([recurse($all[.parent_id // ""]; . != null)] | reverse | map({role, content: .text}))}'
)
_INTERCOM = (
    '{messages: [(.source | {body, who: "user"}), (.conversation_parts.conversation_parts[] | {body, who: .author.type}'
    ') | select(.body) | {role: (if .who | IN("user", "lead", "contact") then "user" else "assistant" end), '
    'content: (.body | gsub("<[^>]*>"; ""))}] | until(. == [] or .[-1].role == "assistant"; .[:-1])} '
    "| select(.messages != [])"
)
_SLACK = (
    "group_by(.thread_ts // .ts)[] | [.[] | select(.text) | {role: "
    '(if .user == "ANSWERER" then "assistant" else "user" end), content: .text}] '
    '| until(. == [] or .[-1].role == "assistant"; .[:-1]) | select(. != []) | {messages: .}'
)

_EXPORTS: tuple[tuple[frozenset[str], str, str], ...] = (
    (frozenset({"mapping", "current_node"}), _CHATGPT, "makes a row of each conversation of ChatGPT"),
    (
        frozenset({"patterns", "responses"}),
        ".responses[0] as $first | .patterns[] | {prompt: ., completion: $first} | select(.completion)",
        "makes a row of each pattern of an intent, answered by its first response",
    ),
    (
        frozenset({"source", "conversation_parts"}),
        _INTERCOM,
        "makes a row of each conversation of Intercom, without the marks of HTML",
    ),
    (frozenset({"uuid", "chat_messages"}), _CLAUDE, "makes a row of each conversation of Claude"),
    (
        frozenset({"annotations", "data"}),
        _LABEL_STUDIO,
        "takes the text and its first label out of tasks of Label Studio; another field than text is .data.NAME",
    ),
    (
        frozenset({"fields", "responses"}),
        '{prompt: .fields.NAME, completion: (.responses.NAME | if type == "array" then .[0] else . end | .value)} '
        "| select(.completion)",
        "takes a field and the first response to a question out of records of Argilla",
    ),
    *(
        (frozenset({"text", "answer", mark}), _PRODIGY, "takes what was accepted out of tasks of Prodigy")
        for mark in ("_input_hash", "_task_hash")
    ),
    (
        frozenset({"instruction", "output", "history"}),
        _WITH_HISTORY,
        "makes conversations, the earlier turns before the instruction",
    ),
    (frozenset({"message", "chat_history"}), _COHERE, "makes conversations, the earlier turns before the message"),
    *((frozenset({"question", "choices", key}), _CHOICES, _CHOSEN) for key in ("answer", "answerKey")),
)
_MESSAGE_EXPORTS: tuple[tuple[frozenset[str], str, str], ...] = (
    (
        frozenset({"message_id", "parent_id", "role", "text"}),
        _TREES,
        "makes a row of each way through a tree of messages to one of its last answers",
    ),
    (
        frozenset({"type", "user", "text", "ts"}),
        _SLACK,
        "makes a row of each thread of Slack, with the id of who answers for ANSWERER",
    ),
)
"""Exports whose rows are single messages."""


def export_step(names: Collection[str], first: Mapping[str, Any], file_format: str) -> str | None:
    """How to make rows of a file with these columns; None if no program is known to write them.

    `first`: fields of the first row.
    """
    if "custom_id" in names and not _IN_BATCHES.isdisjoint(names):
        how = "makes a row of each request of a batch and its answer, where their two files are both at hand"
        return f"`{_BATCHES}` {how}."
    if set(names) == {"id", "data"} and isinstance(first.get("data"), list):
        return f"`{jq_rows(file_format, _ULTRACHAT)}` makes messages of texts that take turns, the user's first."
    for command, exports in ((jq_rows, _EXPORTS), (jq_all, _MESSAGE_EXPORTS)):
        for known, program, does in exports:
            if known.issubset(names):
                return f"`{command(file_format, program)}` {does}."
    return None


def dialogues_step(chosen: str, rejected: str, first: Mapping[str, Any], file_format: str) -> str:
    """The step for two whole dialogues per row without a prompt column; the dialogues may be plain text."""
    step = (
        "Write what both answer into a column prompt, or write chosen and rejected as lists of messages, "
        '[{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]; text has no turns.'
    )
    if "Human:" not in str(first.get(chosen)):
        return step
    both = ", ".join(f"{key(name)}: ({field(name)} | turns)" for name in (chosen, rejected))
    how = jq_rows(file_format, f"{_TURNS}{{{both}}}")
    return f"{step} `{how}` does it with dialogues of Human: and Assistant:, as in HH-RLHF."


_BETTER_FIRST = "as [$better, $worse] | "
_PAIR = "{prompt: %s, chosen: $better, rejected: $worse}"

_ARENA = (
    'select(.winner | IN("model_a", "model_b")) | (if .winner == "model_a" then [.conversation_a, .conversation_b] '
    f"else [.conversation_b, .conversation_a] end) {_BETTER_FIRST}select($better[:-1] == $worse[:-1]) "
    "| {prompt: $better[:-1], chosen: $better[-1].content, rejected: $worse[-1].content}"
)
_HELPSTEER = (
    "select(.overall_preference != 0) | (if .overall_preference < 0 then [.response1, .response2] "
    f"else [.response2, .response1] end) {_BETTER_FIRST}{_PAIR % '.context'}"
)
_KTO_PROGRAM = (
    'def is_good: .label | tostring | ascii_downcase | IN("true", "1"); group_by(.prompt)[] '
    "| [map(select(is_good)), map(select(is_good | not))] as [$good, $bad] | range([$good, $bad | length] | min) "
    "as $at | {prompt: .[0].prompt, chosen: $good[$at].completion, rejected: $bad[$at].completion}"
)
_KTO = frozenset({"prompt", "completion", "label"})
_KNOWN: tuple[tuple[frozenset[str], str, str], ...] = (
    (frozenset({"conversation_a", "conversation_b", "winner"}), _ARENA, "which of two models won"),
    (frozenset({"context", "response1", "response2", "overall_preference"}), _HELPSTEER, "what HelpSteer3 prefers"),
)


_QUESTIONS = ("prompt", "question", "instruction", "query", "input")
_TEXTS = ("response", "answer", "completion", "output", "text", "content")
_WINNERS = ("winner", "preferred", "preference", "better", "choice", "label")
_SCORES = ("overall_score", "score", "rating", "reward", "pm_score", "rank", "fine-grained_score")


def _two_answers_programs(names: Collection[str], first: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The program for two answers, ending with a and b or 1 and 2, and a column that names the better one.

    It gets all rows at once: if any row says 0, then 1 may mean the second answer.
    """
    question, winner = (next((name for name in known if name in names), None) for known in (_QUESTIONS, _WINNERS))
    if question is None or winner is None:
        return
    for one, two in ((f"{word}{mark}", f"{word}{other}") for word in _TEXTS for mark, other in _MARKS):
        if one in names and two in names:
            marks = f"{one[-1]}{two[-1]}".lower()
            if (said := str(first.get(winner)).lower()) in _NUMBERS and said not in marks:
                yield (
                    f'.[] | ({field(winner)} | tostring) as $who | ({{"ONE": [{field(one)}, {field(two)}], "TWO": '
                    f"[{field(two)}, {field(one)}]}}[$who] // empty) {_BETTER_FIRST}{_PAIR % field(question)}",
                    f"what {winner} says, with its own words where {one} is better for ONE, and {two} for TWO",
                )
                return
            yield (
                f'if any({field(winner)} == (0, "0")) then error("0 is no answer") else .[] end | '
                f"({field(winner)} | tostring | ascii_downcase) as $who | "
                f'select($who | test("(^|[^a-z0-9])[{marks}]$")) | (if $who | endswith("{marks[0]}") then '
                f"[{field(one)}, {field(two)}] else [{field(two)}, {field(one)}] end) "
                f"{_BETTER_FIRST}{_PAIR % field(question)}",
                f"what {winner} says",
            )


_NUMBERS = ("0", "1", "true", "false")
"""Values whose meaning depends on how the answers are counted."""
_MARKS = (("_a", "_b"), ("_A", "_B"), ("_1", "_2"), ("A", "B"), ("1", "2"))


def _scored_answers_programs(names: Collection[str], first: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The program for a list of answers, each with its score or rank, or with a separate list of these."""
    question = next((name for name in _QUESTIONS if name in names), "")
    lists = {name: value for name, value in first.items() if isinstance(value, list) and value and may_be_shown(name)}
    for name, answers in lists.items() if question else ():
        within = answers[0] if isinstance(answers[0], dict) else {}
        text, score = (next((key for key in known if key in within), None) for known in (_TEXTS, _SCORES))
        if text and score:
            yield _score_program(question, f"{field(name)} | map([{field(text)}, {field(score)}])", score)
        for other, numbers in lists.items():
            if isinstance(answers[0], str) and isinstance(numbers[0], int | float):
                yield _score_program(question, f"[{field(name)}, {field(other)}] | transpose", other)


def _score_program(question: str, scored: str, called: str) -> tuple[str, str]:
    """The program for pairs of text and score; the best has the lowest rank, or else the highest score."""
    best, worst = (0, -1) if "rank" in called else (-1, 0)
    return (
        f"({scored} | map([.[0], (.[1] | tonumber? // null)] | select(all(. != null))) | sort_by(.[1]) "
        "| select(.[0][1] != .[-1][1]) "
        f"| [.[{best}][0], .[{worst}][0]]) {_BETTER_FIRST}{_PAIR % field(question)}",
        f"their {called}",
    )


def comparison_step(
    names: Collection[str], first: Mapping[str, Any], file_format: str, *, of_pairs: bool
) -> str | None:
    """How to make rows of a file with these columns; None if no comparison is recognized.

    `of_pairs`: make preference pairs, instead of rows with the better answer only.
    """
    if of_pairs and _KTO.issubset(names):
        how = jq_all(file_format, _KTO_PROGRAM)
        return f"`{how}` puts what is labelled good and bad of one prompt together; other rows are left out."
    known = ((jq_rows, program, by) for columns, program, by in _KNOWN if columns.issubset(names))
    others = ((jq_rows, program, by) for program, by in _scored_answers_programs(names, first))
    found = next(
        chain(known, ((jq_all, program, by) for program, by in _two_answers_programs(names, first)), others), None
    )
    if found is None:
        return None
    command, program, by = found
    if of_pairs:
        return f"`{command(file_format, program)}` takes the better and the worse answer by {by}."
    how = command(file_format, f"{program} | {{prompt, completion: .chosen}}")
    return f"`{how}` takes the better answer by {by}. With spec.preference: {{}} both are learnt from."
