"""Valid rows that look like a mistake: found by checks of their text, counted, and reported as warnings."""

import re
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from itertools import chain, starmap
from operator import eq
from os.path import commonprefix

from finetune_api.words import counted
from finetune_trainer.data import damaged_text
from finetune_trainer.data.fixes.chat_markup import in_chat_format
from finetune_trainer.data.fixes.column_names import are_names
from finetune_trainer.data.prompts import is_written_as_text
from finetune_trainer.data.rows import Position, Row, Rows
from finetune_trainer.data.tokenizer.chat_tokenizer import ChatTokenizer
from finetune_trainer.data.tokenizer.shared_parts import mark_pattern

RowCheck = Callable[[Row | Rows], Sequence[int]]
"""Returns the packed positions of the doubtful rows among the given ones, in order."""

_NULLS_OF_PROGRAMS = ("nan", "NaN", "NAN", "<NA>", "NaT", "None", "null", "NULL", "\\N", "undefined", "N/A", "n/a")
_NULLS_AS_DISPLAYED = ("[NULL]", "(null)", "(NULL)", "<null>", "nil", "[deleted]", "[removed]", "(blank)", "(empty)")
"""Missing values as databases, forums and pivot tables display them."""
_SHEET_ERRORS = ("#N/A", "#REF!", "#VALUE!", "#DIV/0!", "#NAME?", "#NUM!", "#NULL!")
_NULLS_OF_SHEETS = (*_SHEET_ERRORS, *("#" * count for count in range(5, 256)))
"""Error values of spreadsheets, and numbers in a column that is too narrow."""
_NO_INPUT = ("<noinput>", "<no input>", "No input", "-")
_MIN_ROWS = 10
"""Number of rows that may plausibly all have the same answer."""
_MIN_ROWS_IF_NEVER_MEANT, _MIN_ROWS_IF_RARELY_MEANT = 2, 3
"""Number of rows needed to report what is almost never intended, and what is rarely intended."""
_NO_VALUE = frozenset((*_NULLS_OF_PROGRAMS, *_NULLS_AS_DISPLAYED, *_NULLS_OF_SHEETS))
_PLACEHOLDERS = frozenset(
    spelt
    for word in ("todo", "tbd", "tba", "tbc", "fixme", "placeholder", "...", "…")
    for end in ("", ".", ":")
    for spelt in (f"{word}{end}", f"{word.upper()}{end}", f"{word.title()}{end}")
)
_TOTALS = frozenset(
    spelt
    for word in ("total", "totals", "grand total", "subtotal", "sub-total", "sum total")
    for end in ("", ":")
    for spelt in (f"{word.upper()}{end}", f"{word.title()}{end}", f"{word.capitalize()}{end}")
)
_ALL_WORDS = _NO_VALUE | _PLACEHOLDERS | _TOTALS


class RowWarning:
    """Counts the rows that are doubtful for one reason, and keeps the first of them."""

    def __init__(self, check: RowCheck, what: str, then: str = "") -> None:
        self._check = check
        self.what = what
        """What such rows have, for messages."""
        self.then = then
        """The consequence, for messages."""
        self.rows = 0
        self.first: Position | None = None

    def add(self, found: Row | Rows) -> None:
        """Check one row or a batch."""
        places = self._check(found)
        if places and self.first is None:
            self.first = Position.unpacked(places[0])
        self.rows += len(places)


class EveryRowWarning:
    """Whether all rows of a file have a property that is fine in a few of them but a mistake in all."""

    def __init__(self, has_it: Callable[[str, str], bool], what: str, least: int = _MIN_ROWS) -> None:
        """`has_it`: of a question and its answer. `least`: rows needed to report it."""
        self._has_it = has_it
        self._least = least
        self.what = what
        """What all rows have, for messages."""
        self._rows = 0
        self._failed = False

    def add(self, found: Row | Rows) -> None:
        """Check one row or a batch. Stops checking after the first row that lacks the property."""
        if self._failed:
            return
        if isinstance(found, Row):
            pairs = [(found.prompt[-1].content, found.completion)]
        else:
            pairs = list(zip(*found.contents[-2:], strict=True))
        self._rows += len(pairs)
        self._failed = not all(starmap(self._has_it, pairs))

    @property
    def holds(self) -> bool:
        """Whether all rows have it, and there are enough of them."""
        return not self._failed and self._rows >= self._least


class TruncationWarning:
    """Whether several texts share the maximum length: a sign that longer ones were truncated, as cells are."""

    def __init__(self, from_end: int, what: str) -> None:
        """`from_end`: the turn's position from the end of the row, 1 for the last."""
        self._from_end = from_end
        self._what = what
        self._length, self._rows = 0, 0
        self._texts = set[str]()
        self._lengths_differ = False

    def add(self, found: Row | Rows) -> None:
        """Check one row or a batch."""
        texts = found.contents[-self._from_end] if isinstance(found, Rows) else [found.turns[-self._from_end].content]
        length = max(map(len, texts))
        if length < self._length:
            self._lengths_differ = True
            return
        if length > self._length:
            self._lengths_differ = self._lengths_differ or self._length > 0
            self._length, self._rows, self._texts = length, 0, set()
        longest = [text for text in texts if len(text) == length]
        self._lengths_differ = self._lengths_differ or len(longest) < len(texts)
        self._rows += len(longest)
        if len(self._texts) < _MIN_ROWS_IF_RARELY_MEANT:
            self._texts.update(longest)

    @property
    def warning(self) -> str | None:
        """The warning; None without a sign of truncation. Texts that all have the same length are intended."""
        several = (
            self._lengths_differ and self._length >= _MIN_TRUNCATED and len(self._texts) >= _MIN_ROWS_IF_RARELY_MEANT
        )
        if not several and self._length != _EXCEL_CELL_LIMIT:
            return None
        return (
            f"{counted(self._rows, self._what)} of exactly {self._length:,} characters, and none longer: are they cut?"
        )


_MIN_TRUNCATED, _EXCEL_CELL_LIMIT = 200, 32_767


def every_row_warnings() -> list[EveryRowWarning]:
    """Checks of all rows together. Mostly the wrong column was named, or one that holds both texts."""
    answers = set[str]()

    def is_the_same(_: str, answer: str) -> bool:
        answers.add(answer)
        return len(answers) == 1

    common = set[str]()

    def has_same_field(asked: str, _: str) -> bool:
        found = set(_TEMPLATE_FIELD.findall(asked))
        common.update(() if common else found)
        common.intersection_update(found)
        return bool(common)

    return [
        EveryRowWarning(
            has_same_field,
            "have one and the same placeholder in the question, such as {name}: was it to be filled?",
            _MIN_ROWS_IF_RARELY_MEANT,
        ),
        EveryRowWarning(
            lambda asked, answer: bool(_USER_LABEL.match(asked) or _ASSISTANT_LABEL.match(answer)),
            "begin with who speaks, such as User: or Assistant:, which is learnt so: chat templates write it",
            _MIN_ROWS_IF_RARELY_MEANT,
        ),
        EveryRowWarning(
            lambda asked, answer: damaged_text.is_wrapped(asked) and damaged_text.is_wrapped(answer),
            "have question and answer within quotes, brackets or tags of HTML, which are learnt with them: so "
            "programs, databases and pages show texts, lists and structs",
            _MIN_ROWS_IF_NEVER_MEANT,
        ),
        EveryRowWarning(
            lambda asked, answer: damaged_text.is_encoded(asked) and " " not in answer,
            "have a question in base64, or as addresses or Postgres write bytes: that is learnt, and not what it says",
            _MIN_ROWS_IF_RARELY_MEANT,
        ),
        EveryRowWarning(is_the_same, "have the same answer: a model learns to say it whatever it is asked"),
        EveryRowWarning(
            lambda asked, answer: asked != answer and asked.rstrip(" .\n").endswith(answer),
            "tell the answer at the end of the question: a model learns to repeat it",
        ),
        EveryRowWarning(
            lambda _, answer: damaged_text.is_quoted(answer), "have quotes around the answer, which are learnt with it"
        ),
        EveryRowWarning(
            lambda asked, answer: asked != answer and answer.startswith(asked),
            "have the question before the answer, in the answer's text: a model learns to repeat it",
        ),
    ]


_TEMPLATE_FIELD = re.compile(r"(?<![\\\w^}])(?:\{\{ *[A-Za-z_][\w. ]*\}\}|\$?\{[A-Za-z_][\w.]*\}|%\([A-Za-z_]\w*\)s)")
"""A placeholder of a prompt template. In formulas other characters precede the brace."""
_USER_LABEL, _ASSISTANT_LABEL = (
    re.compile(rf"(?:#+ *)?(?:{names}) *:", re.IGNORECASE) for names in ("human|user", "assistant|ai|bot")
)


class ExactWords:
    """Finds rows with a text that is exactly one of some words. A block is searched once for all words together."""

    def __init__(self) -> None:
        self._asked: Rows | None = None
        self._have_any = False

    def missing_values(self, found: Row | Rows) -> Sequence[int]:
        """Rows with a text that pandas, Excel and others write for a missing value."""
        return _with_exact_text(_NO_VALUE, found) if self._may_have_any(found) else ()

    def placeholders(self, found: Row | Rows) -> Sequence[int]:
        """Rows with a text that is a placeholder for one still to be written."""
        return _with_exact_text(_PLACEHOLDERS, found) if self._may_have_any(found) else ()

    def totals(self, found: Row | Rows) -> Sequence[int]:
        """Rows whose question is the label of a spreadsheet's total row. As an answer it may be intended."""
        if isinstance(found, Row):
            return _place_of(found) if found.prompt[-1].content in _TOTALS else ()
        if not self._may_have_any(found):
            return ()
        return [place for place, text in zip(found.places, found.contents[-2], strict=True) if text in _TOTALS]

    def _may_have_any(self, found: Row | Rows) -> bool:
        if isinstance(found, Row):
            return True
        if found is not self._asked:
            self._asked, self._have_any = found, not all(map(_ALL_WORDS.isdisjoint, found.contents))
        return self._have_any


def with_no_value_below() -> RowWarning:
    """Finds rows with a word for a missing value below the instruction."""
    ends = tuple(f"\n\n{word}" for word in (*_NULLS_OF_PROGRAMS, *_NULLS_AS_DISPLAYED, *_SHEET_ERRORS, *_NO_INPUT))

    def check(found: Row | Rows) -> Sequence[int]:
        if isinstance(found, Row):
            return _place_of(found) if found.prompt[-1].content.endswith(ends) else ()
        return [place for place, asked in zip(found.places, found.contents[-2], strict=True) if asked.endswith(ends)]

    return RowWarning(check, "a word for no value below the instruction, such as <noinput>", _UNCHANGED)


def answered_as_asked(found: Row | Rows) -> Sequence[int]:
    """Rows whose answer equals the question: mostly the same column was named twice, or copied."""
    if isinstance(found, Row):
        return _place_of(found) if found.prompt[-1].content == found.completion else ()
    asked, answers = found.contents[-2:]
    if not any(map(eq, asked, answers)):
        return ()
    return [place for place, same in zip(found.places, map(eq, asked, answers), strict=True) if same]


def with_character(one: str) -> RowCheck:
    """Finds rows with a character that nobody types: an artifact of an earlier program."""
    return _where(lambda text: one in text)


def _with_exact_text(words: AbstractSet[str], found: Row | Rows) -> Sequence[int]:
    """Rows with a text that is exactly one of these words."""
    if isinstance(found, Row):
        return _place_of(found) if not words.isdisjoint(_texts(found)) else ()
    if all(map(words.isdisjoint, found.contents)):
        return ()
    rows = zip(found.places, zip(*found.contents, strict=True), strict=True)
    return [place for place, texts in rows if not words.isdisjoint(texts)]


def _where(has_it: Callable[[str], bool], may_have: Callable[[str], bool] | None = None) -> RowCheck:
    """Finds rows with a text that has a property. `may_have` is a cheap check of all texts joined, `has_it` if None."""
    may_have_any = may_have or has_it

    def check(found: Row | Rows) -> Sequence[int]:
        if isinstance(found, Row):
            return _place_of(found) if any(map(has_it, _texts(found))) else ()
        if not may_have_any(found.all_text):
            return ()
        rows = zip(found.places, zip(*found.contents, strict=True), strict=True)
        return [place for place, texts in rows if any(map(has_it, texts))]

    return check


_WRONG_ENCODING = ": the text was read in another encoding before it was saved; export it again as UTF-8"
_UNCHANGED = "; it is learnt like any other"
_UNESCAPE = "; they are learnt as they are: Python's html.unescape turns them into plain text"


def text_warnings() -> list[RowWarning]:
    """New checks of each single row's texts."""
    words = ExactWords()
    return [
        RowWarning(words.missing_values, "a text that mostly means no value, such as nan, None or #N/A"),
        RowWarning(words.placeholders, "a placeholder for text that is still missing, such as TODO or TBD"),
        RowWarning(words.totals, "a question that is a total, as spreadsheets have below their columns"),
        RowWarning(answered_as_asked, "an answer that is the question"),
        RowWarning(with_character("\N{REPLACEMENT CHARACTER}"), "the sign for a character that was lost (U+FFFD)"),
        RowWarning(_where(damaged_text.is_encoded_twice), "letters such as Ã¼ where ü was meant", _WRONG_ENCODING),
        RowWarning(_where(damaged_text.has_html), "HTML entities such as &amp;", _UNESCAPE),
        RowWarning(
            _where(
                damaged_text.has_written_breaks,
                may_have=lambda texts: "\\" in texts and ("\\n" in texts or "\\t" in texts),
            ),
            r"line breaks or tabs written out as \n or \t",
            "; they are learnt as a backslash and a letter",
        ),
        RowWarning(
            _where(damaged_text.has_escaped_breaks, may_have=lambda texts: "\\" in texts and "\\\n" in texts),
            "a backslash before each line break",
            f"{_UNCHANGED}: databases write it there, and export without it as CSV or JSON",
        ),
        RowWarning(
            _where(damaged_text.ends_escaped, may_have=lambda texts: "\\" in texts),
            "a backslash at the end of a text",
            f"{_UNCHANGED}: where it escapes a separator or a line break, the text goes on in another cell or row",
        ),
        RowWarning(
            _where(damaged_text.is_json_string, may_have=lambda texts: "\\" in texts and '"' in texts),
            "text as JSON writes it, with quotes around it and escapes within",
            "; it is learnt as it is: Python's json.loads or jq's fromjson turns it into plain text",
        ),
        RowWarning(
            _where(damaged_text.has_written_letters, may_have=lambda texts: "\\" in texts and "\\u" in texts),
            r"escaped letters, such as \u00e9",
            "; they are learnt as they are",
        ),
        RowWarning(
            _where(damaged_text.has_file), "the bytes of a file, such as a picture, written as text", _UNCHANGED
        ),
        RowWarning(
            _where(damaged_text.shows_image, may_have=lambda texts: "<" in texts and "<image>" in texts),
            "the mark for a picture, such as <image>, which is learnt as text",
        ),
        RowWarning(_where(damaged_text.has_bytes_of_mail), "letters encoded as in e-mails, such as =C3=BC", _UNCHANGED),
        RowWarning(with_character("\x1b"), "a control sequence of a terminal (U+001B)", _UNCHANGED),
        RowWarning(with_character("\0"), "a NUL character in the text (\\u0000)", _UNCHANGED),
        RowWarning(
            _where(damaged_text.has_controls),
            "control characters where quotes and dashes were meant (U+0080 to U+009F)",
            _WRONG_ENCODING,
        ),
        RowWarning(
            _where(damaged_text.has_breaks_of_excel), "_x000D_, which is Excel's code for a line break", _UNCHANGED
        ),
        RowWarning(with_character("\ufeff"), "a byte order mark in the text (U+FEFF)", _UNCHANGED),
    ]


_OLD_SEPARATOR = (
    "### or -> after its question, as OpenAI's old models needed it: chat templates tell question and answer apart, "
    "so remove it, and a mark such as END after answers"
)


def first_row_warnings(row: Row, *, in_csv: bool) -> Iterator[str]:
    """Probable mistakes that are checked in the first row only, with their consequence."""
    if are_names(row.prompt[-1].content, row.completion):
        yield "names of columns for its texts: a header that is learnt as a row"
    if is_written_as_text(row):
        yield "messages written as JSON, or by Python, for text: they are learnt as that text"
    if in_csv and _in_quotes(row):
        how = 'cells are quoted by ", and neither a space nor = stands before it'
        yield f"quotes around its cells, which are learnt with them: {how}"
    if in_csv and any(_SHORTENED.fullmatch(text) for text in _texts(row)):
        yield "a number as spreadsheets shorten long ones, such as 1.23E+10: save the cells as text"
    if _with_old_separator(row):
        yield _OLD_SEPARATOR
    if row.completion[:1].isspace():
        yield "white space before its answer, which is learnt with it unless the chat template removes it"
    if marks := in_chat_format(_texts(row)):
        yield f"marks of a chat in its text, such as {marks}: the chat template adds them, so remove them"


def _in_quotes(row: Row) -> bool:
    """Whether a CSV row kept its quotes as text: single quotes, or double quotes after a space or =."""
    texts = [turn.content for turn in row.turns]
    return all(_between("'", text) for text in texts) or any(
        (text[0].isspace() or text[0] == "=") and _between('"', text.strip().removeprefix("=")) for text in texts
    )


_SHORTENED = re.compile(r"[1-9][.,][0-9]+E\+[0-9]{2}")


def _with_old_separator(row: Row) -> bool:
    """Whether its question ends with a separator that OpenAI's completion models required."""
    return row.prompt[-1].content.rstrip().endswith(("###", "->"))


def _between(mark: str, text: str) -> bool:
    return len(text) > 1 and text[0] == mark == text[-1]


def with_special_tokens(tokenizer: ChatTokenizer) -> RowCheck:
    """Finds rows whose text contains special tokens: the tokenizer encodes them as such, not as text.

    Mostly such rows were already formatted with a chat template, which would be applied twice.
    """
    added = tokenizer.backend.get_added_tokens_decoder().values()
    tokens = [token.content for token in added if token.special and token.content]
    if not tokens:
        return lambda _: ()
    begin = commonprefix(tokens)  # noqa: RUF071 - of texts; most rows do not contain even that
    search = mark_pattern(tokens).search

    def check(found: Row | Rows) -> Sequence[int]:
        if isinstance(found, Row):
            return _place_of(found) if any(map(search, _texts(found))) else ()
        if begin not in found.all_text:
            return ()
        pairs = chain.from_iterable(zip(found.places, texts, strict=True) for texts in found.contents)
        return sorted({place for place, text in pairs if begin in text and search(text)})

    return check


def _texts(row: Row) -> list[str]:
    """All texts of the row, including the rejected answer."""
    return [*(turn.content for turn in row.turns), *(() if row.rejected is None else (row.rejected,))]


def _place_of(row: Row) -> Sequence[int]:
    return [row.position.packed()]
