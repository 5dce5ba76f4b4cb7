"""Columns that a job asks for and a file lacks: which ones, the file's columns instead, and which were probably meant.

Deals with column names only. If the first line of a CSV file may be data, it is not shown.
"""

import difflib
import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from finetune_api.dataset import Columns
from finetune_trainer.data.fixes.jq import field, jq_all, jq_rows, key, quoted, separator_in
from finetune_trainer.data.layouts import BELOW, Layout, Layouts
from finetune_trainer.data.rows import ORDINARY_NAME
from finetune_trainer.data.turns import ROLE_OF, messages_in

_COMMON_NAMES = {
    "prompt": "instruction question input query text source user human context sentence inputs article document src "
    "dialogue dialog questions queries prompts "
    "problem userinput usermessage inputtext textinput frage eingabe pregunta entrada pergunta domanda "
    "вопрос q 质问 问题 質問 提示 指令 输入",
    "completion": "output answer response label target assistant chosen reply summary targets highlights tgt gpt bot "
    "expectedoutput groundtruth ideal reference expected botresponse modelresponse solution outputtext generation "
    "answers responses replies outputs "
    "a antwort ausgabe respuesta salida resposta risposta réponse ответ 答案 回答 输出",
    "system": "instruction system_prompt context",
    "messages": "conversation conversations dialog dialogue chat turns",
    "chosen": "preferred preferred_output chosen_response accepted winner",
    "rejected": "non_preferred_output dispreferred rejected_response loser",
}
_NAMES_BY_PART = {part: tuple(words.split()) for part, words in _COMMON_NAMES.items()}
"""Other common names of these columns, the most common first."""
_SYSTEM_NAMES = ("system_prompt", "system_message")
_OTHER_USUAL_NAMES = ("id", "index", "title", "category", "rejected", "score", "date", "comment", "review", "tweet")
_LANGUAGES = frozenset(["ar", "de", "en", "es", "fr", "it", "ja", "ko", "nl", "pl", "pt", "ru", "tr", "zh"])
"""Common names of columns in translation data."""
_NEIGHBOURS_PROGRAM = (
    "def who: .role // .from | tostring | ascii_downcase; [., .[1:]] | transpose[] | select(.[1] and "
    '(.[0] | who | IN("user", "human")) and (.[1] | who | IN("assistant", "gpt", "model"))) | {messages: .}'
)
_MESSAGE_NAMES = ({"role", "content"}, {"from", "value"})
_UNREAD_COLUMNS = {
    "a question is learnt without the choices that it gives": ("choices", "options", "endings"),
    "a question is learnt without the text that it is about": ("passage", "paragraph", "story"),
    "earlier turns are left out": ("history", "chathistory"),
    "rows are learnt as if the model had no tools": ("tools", "functions"),
    "rows are learnt without what it shows": ("image", "images", "audio", "audios", "video", "videos"),
    "answers are learnt without it": ("reasoning", "reasoningcontent", "thinking", "cot", "complexcot"),
    "answers that it calls bad are learnt like any other": ("ktotag", "iscorrect", "accepted", "thumbsup"),
    "all rows count the same": ("weight", "sampleweight"),
    "all rows of the file are taken, of whatever split": (
        *("split", "datasplit", "set", "partition", "fold", "istest", "istrain", "isval", "isvalidation"),
    ),
}
"""Consequence of not reading a column, by its name."""

_SENTENCE = re.compile(r"(\S+ ){3}|[0-9]{6}")
"""Unlikely in column names, but likely in data in their place."""
_Q_AND_A = frozenset({"q", "a"})
_DESCRIBES_OTHER = re.compile(r"[a-z][_ -](id|idx|hash|model|length|tokens|(avg_?)?(rating|score)s?)$", re.IGNORECASE)
"""Ends of column names that describe another column and hold no training text: prompt_id, rejected_rating."""
_PLAIN_YAML = re.compile(r"[A-Za-z_][\w-]*")
DATA = "the names of its columns look like data"
NO_HEADER = f"{DATA}: the header may be missing"
KEYS = (
    "`jq -c 'to_entries[] | {prompt: .key, completion: .value}' FILE > ROWS.jsonl` makes rows of objects that have "
    "questions for names and answers for values."
)
"""The next step if objects have data as names."""

_MAX_SHOWN = 16
_MANY = 64
_NAME_SUFFIX = re.compile(
    r"(?<!\s)\s*+[(\[](required|optional|text|string|question|answer|input|output|user|assistant|[a-z]{2})[)\]]"
    r"|(?<![*:\s])[*:\s]++\Z",  # linear in the length of a name, which may be data
    re.IGNORECASE,
)
"""What forms and people append to a column name; other words might be data."""


def _is_ordinary(name: str) -> bool:
    return ORDINARY_NAME.fullmatch(_NAME_SUFFIX.sub("", name)) is not None


def may_be_shown(name: str) -> bool:
    """Whether a string is a column name rather than data in its place."""
    return _is_ordinary(name) and _SENTENCE.search(name) is None


def missing_columns(columns: Columns, seen: Collection[str], *, usable: bool = False) -> tuple[str, ...]:
    """Required columns, any one of which would do, that no row has; () if the file has all it needs.

    `usable`: some rows are valid, so nothing that all rows need is missing. Preference pairs may include their prompt.
    """
    if columns.chosen is not None and columns.rejected is not None:
        answer = next((name for name in (columns.chosen, columns.rejected) if name not in seen), None)
        if answer is not None:
            return (answer,)
        return () if usable or {columns.prompt, columns.messages} & set(seen) else (columns.prompt, columns.messages)
    if columns.messages in seen:
        return ()
    if columns.prompt in seen:
        return () if columns.completion in seen else (columns.completion,)
    return (columns.prompt, columns.messages)


def probable_columns(columns: Columns, seen: Sequence[str], first: Mapping[str, Any] | None = None) -> dict[str, str]:
    """For each missing part of a row, the column that was probably meant: `{"prompt": "question"}`.

    `first`: fields of the first row, if known. A similar name alone does not make a text column a conversation.
    """
    asked = columns.named
    free = [name for name in seen if name not in asked.values() and _is_ordinary(name)]
    if not _are_q_and_a(seen):  # one of them alone may be something else
        free = [name for name in free if _plain(name) not in _Q_AND_A]
    if "loser" not in seen:  # otherwise it names the winning model, as in arena data, and is not an answer
        free = [name for name in free if name != "winner"]
    found: dict[str, str] = {}
    known = first or {}
    numbers = {name for name, value in known.items() if isinstance(value, int | float)}  # an index or a score
    for part in columns.needed:
        may_be = [name for name in free if part not in ("chosen", "rejected") or name not in numbers]
        if asked[part] not in seen and (near := nearest(asked[part], _names_of(part), may_be)):
            found[part] = near
            free.remove(near)
    if _is_conversation(known.get(found.get("completion", ""))):
        return {"messages": found["completion"]}
    may_have = [
        name
        for name in (*free, *found.values())
        if _plain(name) in _PLAIN_MESSAGES or not isinstance(known.get(name), str)
    ]
    near = nearest(columns.messages, _names_of("messages"), may_have)
    if near and columns.prompt not in seen and set(found.values()) <= {near}:
        return {"messages": near}
    held = [name for name in free if messages_in(known.get(name))]
    return {"messages": held[0]} if len(held) == 1 and not found and columns.prompt not in seen else found


def _is_conversation(value: Any) -> bool:
    """Whether it is a conversation that begins with the question, and so not merely an answer."""
    messages = messages_in(value) or [None]
    return isinstance(messages[0], dict) and ROLE_OF.get(messages[0].get("role", messages[0].get("from"))) == "user"


def satisfies(layouts: Layouts, fields: Mapping[str, Any]) -> bool:
    """Whether an object has everything a row needs, under the job's column names or known synonyms."""
    columns = layouts.of(fields).columns
    if len(fields) > _MANY:  # fuzzy matching of many names is slow
        return not missing_columns(columns, fields)
    found = probable_columns(columns, list(fields), fields)
    lacking = {part for part in columns.needed if columns.named[part] not in fields}
    return not missing_columns(columns, fields) or "messages" in found or found.keys() >= lacking


def is_called_messages(name: str) -> bool:
    """Whether a column has a common name for the messages of a conversation."""
    return _plain(name) in _PLAIN_MESSAGES


def unused_system_warning(columns: Columns, seen: Sequence[str]) -> str | None:
    """A warning if the job names a missing system column, or the file seems to have one by another name."""
    if columns.system in seen:
        return None
    asked = columns.named.values()
    free = [name for name in seen if name not in asked and _is_ordinary(name)]
    if columns.system == Columns().system:
        near = nearest(columns.system, _SYSTEM_NAMES, free)
        return near and f"column {near} is not read: is it the system message, map it with columns.system"
    near = nearest(columns.system, _names_of("system"), free)
    return f"no row has a column {columns.system!r} (columns.system)" + (f"; did you mean {near}?" if near else "")


def unread_column_warnings(columns: Columns, seen: Sequence[str]) -> Iterator[str]:
    """Warnings about columns that are dropped from every prompt although answers may depend on them."""
    free = [name for name in seen if name not in columns.named.values()]
    below = next((name for name in free if _plain(name) in BELOW), None)
    if below and columns.prompt in seen:
        how = "write both into one column"
        if columns.prompt == "instruction":
            how = f"map neither prompt nor completion (both are read then), or {{system: instruction, prompt: {below}}}"
        yield f"column {below} is not read: where {columns.prompt} needs it, {how}"
    elif below and columns.messages in seen:
        yield f"column {below} is not read: where {columns.messages} need it, write it into a message"
    if "label" in free and {columns.prompt, columns.completion} <= set(seen):
        yield "column label is not read: answers that it calls bad are learnt like any other"
    if "answer" in free and {"_input_hash", "_task_hash"}.intersection(free):
        yield "column answer is not read: what was rejected or ignored in Prodigy is learnt like any other"
    for then, names in _UNREAD_COLUMNS.items():
        if column := next((name for name in free if _plain(name) in names), None):
            yield f"column {column} is not read: {then}"


def are_names(question: str, answer: str) -> bool:
    """Whether the texts are column names: a table's header that became a row."""
    return all(
        _plain(text) in map(_plain, _names_of(part)) for text, part in ((question, "prompt"), (answer, "completion"))
    )


def has_two_answers(seen: Sequence[str]) -> bool:
    """Whether rows seem to be preference pairs, under any names."""
    return all(set(_names_of(part)).intersection(seen) for part in ("chosen", "rejected"))


def _names_of(part: str) -> tuple[str, ...]:
    """Names for a column of this part: ours, in case the job uses another one, then other common ones."""
    return (part, *_NAMES_BY_PART[part])


def nearest(wanted: str, common: Sequence[str], names: Iterable[str]) -> str | None:
    """The name spelled most like the wanted one, else one that is common for it."""
    by_plain = {_plain(name): name for name in reversed(list(names)) if not _DESCRIBES_OTHER.search(name)}
    close = difflib.get_close_matches(_plain(wanted), by_plain, n=1, cutoff=0.74)
    return next((by_plain[name] for name in (*close, *map(_plain, common)) if name in by_plain), None)


def mapping_text(found: dict[str, str]) -> str:
    """As written in a manifest: `{prompt: question}`."""
    inside = (
        f"{part}: {name if _PLAIN_YAML.fullmatch(name) else json.dumps(name, ensure_ascii=False)}"
        for part, name in found.items()
    )
    return f"{{{', '.join(inside)}}}"


def single_messages_step(names: set[str], file_format: str) -> str | None:
    """The next step if each row is a message instead of a conversation; where one ends is unknown."""
    if any(pair <= names for pair in _MESSAGE_NAMES) and file_format.split(",", maxsplit=1)[0] == "JSON":
        return "Write one conversation a row: `jq -c '{messages: .}' FILE > ROWS.jsonl` does it with lists of messages."
    if any(pair <= names for pair in _MESSAGE_NAMES):
        how = jq_all(file_format, _NEIGHBOURS_PROGRAM)
        return f"Write one conversation a row: `{how}` makes a row of each question and the answer right after it."
    return None


def several_answers_step(first: Mapping[str, Any], names: set[str], file_format: str) -> str | None:
    """The next step for questions with several answers: in an object as in SQuAD, in a list, or in either as JSON text.

    `first`: fields of the first row.
    """
    answers = first.get("answers")  # Parquet: absent if it is an object
    if not {"question", "answers"}.issubset(names) or (isinstance(answers, str) and answers[:1] not in {"[", "{"}):
        return None
    plain = '.answers | if type == "string" then fromjson else . end'
    asked = r'(.context + "\n\n" + .question)' if "context" in names else ".question"
    answered = f'({plain} | if type == "object" then .text[0] else .[0] end)'
    how = jq_rows(file_format, f"{{prompt: {asked}, completion: {answered}}} | select(.completion)")
    return f"Take one answer of a row: `{how}` takes the first, and leaves out questions without any."


def rename_step(columns: Columns, found: dict[str, str], file_format: str) -> str:
    """The next step for a file whose columns have other names than those of the job's other files."""
    names = {columns.named[part]: name for part, name in found.items()}
    if file_format.startswith("CSV"):
        pairs = ", ".join(f"{own} for {name}" for own, name in names.items())
        how = f"write the same names into the first line of this one, {pairs}"
    else:
        inside = ", ".join(f"{key(own)}: {field(name)}" for own, name in names.items())
        how = f"`{jq_rows(file_format, f'. + {{{inside}}}')}` gives the columns of this one the same names"
    return f"One mapping counts for all files of a job, and another file fits it: {how}."


def two_layouts_step(columns: Columns, seen: Sequence[str], first: Collection[str], file_format: str) -> str | None:
    """The next step if rows that lack the columns of other rows have them under other names; None if they do not.

    `first`: names in the first row. It must have exactly one of the two layouts, else the columns may be unrelated.
    """
    own = [columns.named[part] for part in columns.needed]
    others = [[one for one in seen if _plain(one) in map(_plain, _names_of(part))] for part in columns.needed]
    found = [[name for name in names if name not in own] for names in others]
    is_whole = all(name in first for name in own) and not any(name in first for names in found for name in names)
    if not all(found) or not file_format.startswith("JSON") or not (is_whole or not any(name in first for name in own)):
        return None
    texts = (f"[{', '.join(map(field, names))}] | map(strings)[0]" for names in found)
    inside = ", ".join(f"{key(name)}: ({text})" for name, text in zip(own, texts, strict=True))
    how = jq_rows(file_format, f"if {field(own[0])} == null then . + {{{inside}}} else . end")
    names = " and ".join(" or ".join(names) for names in found)
    return f"Rows have several layouts: `{how}` gives those without {own[0]} the texts of {names}."


def header_hint(columns: Columns, seen: Sequence[str], file_format: str) -> str:
    """How to add the missing header to a table with exactly the required columns; "" for other tables."""
    needed = [columns.named[part] for part in columns.needed]
    if len(seen) != len(needed):
        return ""
    line = key(json.loads(separator_in(file_format)).join(needed))
    rest = 'shutil.copyfileobj(open("FILE", newline="", encoding="utf-8-sig"), sys.stdout)'
    how = f"python3 -c {quoted(f'import shutil, sys; print({line}); {rest}')} > ROWS.csv"
    return f": `{how}` writes it where the first is a row already, with these in this order"


def lift_step(parts: Sequence[str], file_format: str, *, all_parts: bool) -> str:
    """The next step if the required columns may be within objects, which cannot be mapped.

    `all_parts`: these are all that a row needs; otherwise the others exist and are kept.
    """
    inside = ", ".join(f"{part}: .NAME.NAME" for part in parts)
    how = jq_rows(file_format, f"{{{inside}}}" if all_parts else f". + {{{inside}}}")
    return f"Columns must be at the top of a row: `{how}` takes them out of objects."


def layout_warning(layout: Layout, asked: Layout) -> str:
    """A warning that columns are read under names that the job does not mention."""
    before = asked.columns.named
    changed = {part: name for part, name in layout.columns.named.items() if name != before[part]}
    below = f", with {layout.below} below the prompt" if layout.below else ""
    return f"read by the columns {mapping_text(changed)}{below}"


def columns_in_words(names: Sequence[str], columns: Columns, *, maybe_data: bool) -> str:
    """The file's columns, for a message. `maybe_data`: the names may be the first row of a CSV without a header.

    Many names may also be data: of an object that has the rows' data as names.
    """
    shown = [name for name in names if _is_ordinary(name)]
    is_header = bool(set(columns.named.values()).intersection(names)) or _are_q_and_a(names)
    if len(names) > _MANY or (maybe_data and not is_header):
        codes = _LANGUAGES.intersection(map(_plain, shown))  # one alone may be the label of a text
        shown = [name for name in shown if _is_common(name) or (len(codes) > 1 and _plain(name) in codes)]
    elif not is_header:
        shown = [name for name in shown if _is_common(name) or not _SENTENCE.search(name)]
    if not shown:
        return DATA
    more = len(names) - len(shown[:_MAX_SHOWN])
    listed = ", ".join(" ".join(name.split()) for name in shown[:_MAX_SHOWN])
    return f"its columns are {listed}{f' and {more} more' if more else ''}"


def _is_common(name: str) -> bool:
    """Whether it is, or nearly is, a common column name."""
    common = (*_NAMES_BY_PART, *(one for names in _NAMES_BY_PART.values() for one in names), *_OTHER_USUAL_NAMES)
    return _plain(name) not in _Q_AND_A and bool(
        difflib.get_close_matches(_plain(name), map(_plain, common), n=1, cutoff=0.8)
    )


def _are_q_and_a(names: Iterable[str]) -> bool:
    return set(map(_plain, names)) >= _Q_AND_A


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", _NAME_SUFFIX.sub("", name)).casefold()


_PLAIN_MESSAGES = frozenset(map(_plain, _names_of("messages")))
