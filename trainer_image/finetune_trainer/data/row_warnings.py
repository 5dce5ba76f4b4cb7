"""Rows that can be learnt from and were probably not meant so: found by a look at their text, counted, warned of."""

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
from finetune_trainer.data.prompts import written_out
from finetune_trainer.data.rows import Position, Row, Rows
from finetune_trainer.data.tokenizer.chat_tokenizer import ChatTokenizer
from finetune_trainer.data.tokenizer.shared_parts import mark_pattern

Look = Callable[[Row | Rows], Sequence[int]]
"""Which of some rows are doubtful: their packed positions, in order."""

_OF_PROGRAMS = ("nan", "NaN", "NAN", "<NA>", "NaT", "None", "null", "NULL", "\\N", "undefined", "N/A", "n/a")
_OF_PLACES = ("[NULL]", "(null)", "(NULL)", "<null>", "nil", "[deleted]", "[removed]", "(blank)", "(empty)")
"""What shows of databases, forums and pivot tables write for it."""
_ERRORS = ("#N/A", "#REF!", "#VALUE!", "#DIV/0!", "#NAME?", "#NUM!", "#NULL!")
_OF_SHEETS = (*_ERRORS, *("#" * count for count in range(5, 256)))
"""Of values, and of numbers in a column that is too narrow."""
_OF_NO_INPUT = ("<noinput>", "<no input>", "No input", "-")
_FEW = 10
"""Rows that may all have one answer."""
_TWO, _SOME = 2, 3
"""Rows that say something that is next to never meant, and that is rarely so."""
_NO_VALUE = frozenset((*_OF_PROGRAMS, *_OF_PLACES, *_OF_SHEETS))
_STILL_TO_COME = frozenset(
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
_WORDS = _NO_VALUE | _STILL_TO_COME | _TOTALS


class Doubtful:
    """How many rows are doubtful for one reason, and the first of them."""

    def __init__(self, look: Look, what: str, then: str = "") -> None:
        self._look = look
        self.what = what
        """That such rows have, for messages."""
        self.then = then
        """What comes of it."""
        self.rows = 0
        self.first: Position | None = None

    def add(self, found: Row | Rows) -> None:
        """Look at one row, or at many."""
        places = self._look(found)
        if places and self.first is None:
            self.first = Position.unpacked(places[0])
        self.rows += len(places)


class EveryRow:
    """Whether each row of a file has something that a few may well have, and all of them have by mistake."""

    def __init__(self, has_it: Callable[[str, str], bool], what: str, least: int = _FEW) -> None:
        """`has_it`: of a question and its answer. `least`: rows that say it."""
        self._has_it = has_it
        self._least = least
        self.what = what
        """That all have, for messages."""
        self._rows = 0
        self._differs = False

    def add(self, found: Row | Rows) -> None:
        """Look at one row, or at many; at none any more once one has it not."""
        if self._differs:
            return
        if isinstance(found, Row):
            pairs = [(found.prompt[-1].content, found.completion)]
        else:
            pairs = list(zip(*found.contents[-2:], strict=True))
        self._rows += len(pairs)
        self._differs = not all(starmap(self._has_it, pairs))

    @property
    def is_so(self) -> bool:
        """Whether there are enough rows to say so."""
        return not self._differs and self._rows >= self._least


class Longest:
    """Whether several texts of one kind are as long as the longest: what was longer is cut there, as cells are."""

    def __init__(self, back: int, what: str) -> None:
        """`back`: of the row's turns from its end."""
        self._back = back
        self._what = what
        self._most, self._rows = 0, 0
        self._texts = set[str]()
        self._differ = False

    def add(self, found: Row | Rows) -> None:
        """Look at one row, or at many."""
        texts = found.contents[-self._back] if isinstance(found, Rows) else [found.turns[-self._back].content]
        most = max(map(len, texts))
        if most < self._most:
            self._differ = True
            return
        if most > self._most:
            self._differ = self._differ or self._most > 0
            self._most, self._rows, self._texts = most, 0, set()
        longest = [text for text in texts if len(text) == most]
        self._differ = self._differ or len(longest) < len(texts)
        self._rows += len(longest)
        if len(self._texts) < _SOME:
            self._texts.update(longest)

    @property
    def said(self) -> str | None:
        """How long they are; None where nothing tells that any is cut. All of one length are meant so."""
        several = self._differ and self._most >= _NOT_SHORT and len(self._texts) >= _SOME
        if not several and self._most != _OF_EXCEL:
            return None
        return f"{counted(self._rows, self._what)} of exactly {self._most:,} characters, and none longer: are they cut?"


_NOT_SHORT, _OF_EXCEL = 200, 32_767


def of_every_row() -> list[EveryRow]:
    """What is asked of all rows of a file together: mostly the wrong column was taken, or one that has both texts."""
    answers = set[str]()

    def is_the_same(_: str, answer: str) -> bool:
        answers.add(answer)
        return len(answers) == 1

    left = set[str]()

    def has_left(asked: str, _: str) -> bool:
        found = set(_TO_FILL.findall(asked))
        left.update(() if left else found)
        left.intersection_update(found)
        return bool(left)

    return [
        EveryRow(
            has_left, "have one and the same placeholder in the question, such as {name}: was it to be filled?", _SOME
        ),
        EveryRow(
            lambda asked, answer: bool(_ASKS.match(asked) or _ANSWERS.match(answer)),
            "begin with who speaks, such as User: or Assistant:, which is learnt so: chat templates write it",
            _SOME,
        ),
        EveryRow(
            lambda asked, answer: damaged_text.is_wrapped(asked) and damaged_text.is_wrapped(answer),
            "have question and answer within quotes or brackets, which are learnt with them: so programs and databases "
            "show texts, lists and structs",
            _TWO,
        ),
        EveryRow(
            lambda asked, answer: damaged_text.is_encoded(asked) and " " not in answer,
            "have a question in base64, or as addresses or Postgres write bytes: that is learnt, and not what it says",
            _SOME,
        ),
        EveryRow(is_the_same, "have the same answer: a model learns to say it whatever it is asked"),
        EveryRow(
            lambda asked, answer: asked != answer and asked.rstrip(" .\n").endswith(answer),
            "tell the answer at the end of the question: a model learns to repeat it",
        ),
        EveryRow(
            lambda _, answer: damaged_text.is_quoted(answer),
            "have quotes around the answer, which are learnt with it",
        ),
        EveryRow(
            lambda asked, answer: asked != answer and answer.startswith(asked),
            "have the question before the answer, in the answer's text: a model learns to repeat it",
        ),
    ]


_TO_FILL = re.compile(r"(?<![\\\w^}])(?:\{\{ *[A-Za-z_][\w. ]*\}\}|\$?\{[A-Za-z_][\w.]*\}|%\([A-Za-z_]\w*\)s)")
"""What stands in templates of prompts where a text is to be put. In formulas something else goes before the brace."""
_ASKS, _ANSWERS = (
    re.compile(rf"(?:#+ *)?(?:{names}) *:", re.IGNORECASE) for names in ("human|user", "assistant|ai|bot")
)


class Words:
    """Finds rows with a text that is a word and nothing else. Whether any row has one is asked once for all words."""

    def __init__(self) -> None:
        self._asked: Rows | None = None
        self._have_any = False

    def say_no_value(self, found: Row | Rows) -> Sequence[int]:
        """Rows that ask or answer with what pandas, Excel and others write where there is no value."""
        return _having(_NO_VALUE, found) if self._may_have_any(found) else ()

    def stand_in(self, found: Row | Rows) -> Sequence[int]:
        """Rows that ask or answer with what stands where something is still to be written."""
        return _having(_STILL_TO_COME, found) if self._may_have_any(found) else ()

    def are_totals(self, found: Row | Rows) -> Sequence[int]:
        """Rows whose question is what spreadsheets have below their columns. As an answer it may well be meant."""
        if isinstance(found, Row):
            return _one(found) if found.prompt[-1].content in _TOTALS else ()
        if not self._may_have_any(found):
            return ()
        return [place for place, text in zip(found.places, found.contents[-2], strict=True) if text in _TOTALS]

    def _may_have_any(self, found: Row | Rows) -> bool:
        if isinstance(found, Row):
            return True
        if found is not self._asked:
            self._asked, self._have_any = found, not all(map(_WORDS.isdisjoint, found.contents))
        return self._have_any


def with_no_value_below() -> Doubtful:
    """Finds rows below whose instruction stands what says that nothing does."""
    ends = tuple(f"\n\n{word}" for word in (*_OF_PROGRAMS, *_OF_PLACES, *_ERRORS, *_OF_NO_INPUT))

    def look(found: Row | Rows) -> Sequence[int]:
        if isinstance(found, Row):
            return _one(found) if found.prompt[-1].content.endswith(ends) else ()
        return [place for place, asked in zip(found.places, found.contents[-2], strict=True) if asked.endswith(ends)]

    return Doubtful(look, "a word for no value below the instruction, such as <noinput>", _AS_ANY_OTHER)


def answered_as_asked(found: Row | Rows) -> Sequence[int]:
    """Rows whose answer is the question itself: mostly a column that was named twice, or copied."""
    if isinstance(found, Row):
        return _one(found) if found.prompt[-1].content == found.completion else ()
    asked, answers = found.contents[-2:]
    if not any(map(eq, asked, answers)):
        return ()
    return [place for place, same in zip(found.places, map(eq, asked, answers), strict=True) if same]


def with_character(one: str) -> Look:
    """Finds rows with a character in them which nobody writes: it is left of what an earlier program did."""
    return _with(lambda text: one in text)


def _having(words: AbstractSet[str], found: Row | Rows) -> Sequence[int]:
    """Rows any of whose texts is one of these words, and nothing else."""
    if isinstance(found, Row):
        return _one(found) if not words.isdisjoint(_texts(found)) else ()
    if all(map(words.isdisjoint, found.contents)):
        return ()
    rows = zip(found.places, zip(*found.contents, strict=True), strict=True)
    return [place for place, texts in rows if not words.isdisjoint(texts)]


def _with(has_it: Callable[[str], bool], may_have: Callable[[str], bool] | None = None) -> Look:
    """Finds rows any of whose texts has something in it. `may_have`: asked of texts put together, else the same is."""
    of_all = may_have or has_it

    def look(found: Row | Rows) -> Sequence[int]:
        if isinstance(found, Row):
            return _one(found) if any(map(has_it, _texts(found))) else ()
        if not of_all(found.whole):
            return ()
        rows = zip(found.places, zip(*found.contents, strict=True), strict=True)
        return [place for place, texts in rows if any(map(has_it, texts))]

    return look


_AS_READ = ": the text was read in another encoding before it was saved; export it again as UTF-8"
_AS_ANY_OTHER = "; it is learnt like any other"
_AS_WRITTEN = "; they are learnt as they are: Python's html.unescape turns them into plain text"


def of_texts() -> list[Doubtful]:
    """What every row of a file is looked at for, none found yet."""
    words = Words()
    return [
        Doubtful(words.say_no_value, "a text that mostly means no value, such as nan, None or #N/A"),
        Doubtful(words.stand_in, "a placeholder for text that is still missing, such as TODO or TBD"),
        Doubtful(words.are_totals, "a question that is a total, as spreadsheets have below their columns"),
        Doubtful(answered_as_asked, "an answer that is the question"),
        Doubtful(with_character("\N{REPLACEMENT CHARACTER}"), "the sign for a character that was lost (U+FFFD)"),
        Doubtful(_with(damaged_text.is_encoded_twice), "letters such as Ã¼ where ü was meant", _AS_READ),
        Doubtful(_with(damaged_text.has_html), "HTML entities such as &amp;", _AS_WRITTEN),
        Doubtful(
            _with(
                damaged_text.has_written_breaks,
                may_have=lambda texts: "\\" in texts and ("\\n" in texts or "\\t" in texts),
            ),
            r"line breaks or tabs written out as \n or \t",
            "; they are learnt as a backslash and a letter",
        ),
        Doubtful(
            _with(damaged_text.has_escaped_breaks, may_have=lambda texts: "\\" in texts and "\\\n" in texts),
            "a backslash before each line break",
            f"{_AS_ANY_OTHER}: databases write it there, and export without it as CSV or JSON",
        ),
        Doubtful(
            _with(damaged_text.ends_escaped, may_have=lambda texts: "\\" in texts),
            "a backslash at the end of a text",
            f"{_AS_ANY_OTHER}: where it escapes a separator or a line break, the text goes on in another cell or row",
        ),
        Doubtful(
            _with(damaged_text.is_json_string, may_have=lambda texts: "\\" in texts and '"' in texts),
            "text as JSON writes it, with quotes around it and escapes within",
            "; it is learnt as it is: Python's json.loads or jq's fromjson turns it into plain text",
        ),
        Doubtful(
            _with(damaged_text.has_written_letters, may_have=lambda texts: "\\" in texts and "\\u" in texts),
            r"escaped letters, such as \u00e9",
            "; they are learnt as they are",
        ),
        Doubtful(
            _with(damaged_text.has_file), "the bytes of a file, such as a picture, written as text", _AS_ANY_OTHER
        ),
        Doubtful(
            _with(damaged_text.shows_image, may_have=lambda texts: "<" in texts and "<image>" in texts),
            "the mark for a picture, such as <image>, which is learnt as text",
        ),
        Doubtful(_with(damaged_text.has_bytes_of_mail), "letters encoded as in e-mails, such as =C3=BC", _AS_ANY_OTHER),
        Doubtful(with_character("\x1b"), "a control sequence of a terminal (U+001B)", _AS_ANY_OTHER),
        Doubtful(with_character("\0"), "a NUL character in the text (\\u0000)", _AS_ANY_OTHER),
        Doubtful(
            _with(damaged_text.has_controls),
            "control characters where quotes and dashes were meant (U+0080 to U+009F)",
            _AS_READ,
        ),
        Doubtful(
            _with(damaged_text.has_breaks_of_excel), "_x000D_, which is Excel's code for a line break", _AS_ANY_OTHER
        ),
        Doubtful(with_character("\ufeff"), "a byte order mark in the text (U+FEFF)", _AS_ANY_OTHER),
    ]


_AS_OLD = (
    "### or -> after its question, as OpenAI's old models needed it: chat templates tell question and answer apart, "
    "so remove it, and a mark such as END after answers"
)


def of_first(row: Row, *, in_csv: bool) -> Iterator[str]:
    """What a row has that was probably not meant, and what it means: asked of the first row alone."""
    if are_names(row.prompt[-1].content, row.completion):
        yield "names of columns for its texts: a header that is learnt as a row"
    if written_out(row):
        yield "messages written as JSON, or by Python, for text: they are learnt as that text"
    if in_csv and _in_quotes(row):
        how = 'cells are quoted by ", and neither a space nor = stands before it'
        yield f"quotes around its cells, which are learnt with them: {how}"
    if in_csv and any(_SHORTENED.fullmatch(text) for text in _texts(row)):
        yield "a number as spreadsheets shorten long ones, such as 1.23E+10: save the cells as text"
    if _with_old_separator(row):
        yield _AS_OLD
    if row.completion[:1].isspace():
        yield "white space before its answer, which is learnt with it unless the chat template removes it"
    if marks := in_chat_format(_texts(row)):
        yield f"marks of a chat in its text, such as {marks}: the chat template adds them, so remove them"


def _in_quotes(row: Row) -> bool:
    """Whether a row of CSV has kept quotes that were to be around its cells: single ones, or behind a space or =."""
    texts = [turn.content for turn in row.turns]
    return all(_between("'", text) for text in texts) or any(
        (text[0].isspace() or text[0] == "=") and _between('"', text.strip().removeprefix("=")) for text in texts
    )


_SHORTENED = re.compile(r"[1-9][.,][0-9]+E\+[0-9]{2}")


def _with_old_separator(row: Row) -> bool:
    """Whether its question ends as OpenAI's completion models wanted all of them to; answers often have a mark, too."""
    return row.prompt[-1].content.rstrip().endswith(("###", "->"))


def _between(mark: str, text: str) -> bool:
    return len(text) > 1 and text[0] == mark == text[-1]


def with_special_tokens(tokenizer: ChatTokenizer) -> Look:
    """Finds rows whose text has special tokens in it: the model reads them as marks of its chat, and not as text.

    Mostly such rows were put into a chat's format before, and would be in it twice.
    """
    added = tokenizer.backend.get_added_tokens_decoder().values()
    tokens = [token.content for token in added if token.special and token.content]
    if not tokens:
        return lambda _: ()
    begin = commonprefix(tokens)  # noqa: RUF071 - of texts; most rows have not even that
    search = mark_pattern(tokens).search

    def look(found: Row | Rows) -> Sequence[int]:
        if isinstance(found, Row):
            return _one(found) if any(map(search, _texts(found))) else ()
        if begin not in found.whole:
            return ()
        pairs = chain.from_iterable(zip(found.places, texts, strict=True) for texts in found.contents)
        return sorted({place for place, text in pairs if begin in text and search(text)})

    return look


def _texts(row: Row) -> list[str]:
    """All that is said in it, the worse answer too."""
    return [*(turn.content for turn in row.turns), *(() if row.rejected is None else (row.rejected,))]


def _one(row: Row) -> Sequence[int]:
    return [row.position.packed()]
