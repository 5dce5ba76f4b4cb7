"""Detects text that an earlier program escaped, quoted or decoded with the wrong encoding. Pure functions of one text.

Where it suffices to rule out a necessary substring, they are called with many texts joined first.
"""

import base64
import re
from collections.abc import Iterable, Iterator, Mapping

import msgspec

_WRITTEN_BREAK = re.compile(r"""\\n(?![a-z"'\])?/{]|[*+|](?! ))""")
"""A line break that was escaped twice. A lower-case letter after it means LaTeX or a path, a quote means program code,
and a quantifier, bracket or alternative means a regular expression."""
_LATEX_COMMANDS = (
    "abla|ag|atural|binom|e|earrow|eg|eq|ewcommand|ewline|ewpage|exists|geq|i|leq|mid|ode|oindent|onumber|ormal\\w*|ot|otin|"
    "parallel|prec|subseteq|succ|u|warrow|a[nu]|anh|ext\\w*|frac|hanks|herefore|heta|ilde|imes|iny|itle|o|op|riangle\\w*"
)
"""LaTeX commands that begin with n or t, without that letter."""
_WRITTEN_PAIR = re.compile(rf"(?<!\\)\\+[nt](?!(?:{_LATEX_COMMANDS})(?![a-z]))")
"""A line break or tab in a text that was escaped twice, or more often."""
_PAIR = re.compile(r"\\(.?)", re.DOTALL)
_ESCAPED = frozenset("ntr0\\")
_PATH = re.compile(r"\b[A-Za-z]:\\|(?:\A|\s)(?:\\\\|\.{1,2}\\)\w")
"""Start of a Windows path."""
_WRITTEN_LETTER = re.compile(r"(?:\\u[0-9a-fA-F]{4})+")
_PLAIN_BREAK = re.compile(r"(?<!\\)(?:\\\\)*\n")
_ESCAPED_BREAK = re.compile(r"""[^\s\\"'](?:\\\\)*\\\n""")
"""In shell or program code, a space or a quote precedes the backslash of a continued line."""
_BEFORE_CONTINUATION = ("", " ", '"', "'")
"""What precedes the backslash there, or nothing."""
_EMOTICON = re.compile(r"(?:\A|\s)[:;=][-'o]?\Z")
"""What precedes a backslash that is the mouth of an emoticon."""
HTML_ENTITY = re.compile(
    "&(amp|lt|gt|quot|apos|nbsp|#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z](acute|grave|circ|uml|tilde|cedil|ring)|szlig|"
    "(ae|AE)lig|[oO]slash|[lr][sd]quo|[lr]aquo|[nm]dash|hellip|euro|pound|copy|trade|deg);"
)
_STRUCT = re.compile(r"""[{\[][^"']*[}\]]""")
_IN_QUOTES = r""""(?:[^"\\]|\\.|"")*+"|“[^“”]*+”"""
_QUOTED = re.compile(_IN_QUOTES, re.DOTALL)
"""Matches the whole text: a text that merely starts and ends with quotes may be a dialogue."""
_WRAPPED = re.compile(
    rf"""{_IN_QUOTES}|b?'(?:[^'\\]|\\.|''|(?<=\w)'(?=\w))*+'|„[^„“]*+“|«[^«»]*+»|\[\s*(?:'[^']*'|"[^"]*")\s*\]"""
    r"|<(p|div|span|td|body|html)\b[^>]*>.*</\1>",
    re.DOTALL,
)
_ENCODED = re.compile(r"\\x(?:[0-9a-f]{2})++\Z|[^%:]*%(?:20|2C|0A|[C-E][0-9A-F])")
_QUOTED_PRINTABLE = re.compile("=(?:C3|E2=80)=")
_BASE64_FILE = re.compile(r";base64,[A-Za-z0-9+/]{32}")


def has_written_breaks(text: str) -> bool:
    r"""Whether its only line breaks or tabs are written as \n or \t. Program code has real line breaks as well."""
    if "\n" in text or not ("\\n" in text or "\\t" in text):
        return False
    return any(_outside_quotes(_unescaped(_WRITTEN_BREAK, text), text)) or _is_escaped(text)


def _unescaped(wanted: re.Pattern[str], text: str) -> Iterator[re.Match[str]]:
    """Matches without a backslash before them; a lookbehind in the pattern takes twenty times as long."""
    return (one for one in wanted.finditer(text) if text[one.start() - 1 : one.start()] != "\\")


def _outside_quotes(found: Iterable[re.Match[str]], text: str) -> Iterator[re.Match[str]]:
    """Matches outside double quotes: inside they would belong to program code or JSON."""
    quotes = last = 0
    for one in found:
        quotes, last = quotes + text.count('"', last, one.start()), one.start()
        if quotes % 2 == 0:
            yield one


def _is_escaped(text: str) -> bool:
    """Whether all of its backslashes are escapes, and at least two of them line breaks or tabs between words.

    After punctuation one is enough.
    """
    if _has_other_backslashes(text):
        return False
    found = list(_outside_quotes(_WRITTEN_PAIR.finditer(text), text))
    is_program = any(text[one.end() : one.end() + 1] in ('"', "'", "`", ")", "]") for one in found)
    ends = any(text[one.start() - 1] in ".!?:;," for one in found if one.start())
    return not is_program and "'" not in text and (ends or len(found) > 1)


def _has_other_backslashes(text: str) -> bool:
    """Whether any backslash is not an escape, or is part of a path: then the others are probably not escapes either."""
    return not _ESCAPED.issuperset(_PAIR.findall(text)) or _PATH.search(text) is not None


def has_written_letters(text: str) -> bool:
    r"""Whether it has \u escapes of JSON at the start of or within words; regular expressions have them elsewhere."""
    if "\\u" not in text:
        return False
    found = ((one, text[max(0, one.start() - 1) : one.start()]) for one in _WRITTEN_LETTER.finditer(text))
    in_text = (one for one, before in found if before.isalnum() or before.isspace() or before in ".,:;!?")  # or nothing
    return any(_outside_quotes(in_text, text))


def has_escaped_breaks(text: str) -> bool:
    """Whether each of its line breaks is preceded by a backslash, as databases write line breaks within a cell."""
    first = text.find("\n")  # mostly decides already
    if first < 1 or text[first - 1] != "\\":
        return False
    return _PLAIN_BREAK.search(text) is None and _ESCAPED_BREAK.search(text) is not None


def ends_escaped(text: str) -> bool:
    """Whether it ends with a backslash that escaped what followed, and is no Windows path and no emoticon."""
    if not text.endswith("\\"):
        return False
    before = text.rstrip("\\")
    if before[-1:] in _BEFORE_CONTINUATION or _EMOTICON.search(before[-3:]):
        return False
    return (len(text) - len(before)) % 2 == 1 and not _has_other_backslashes(before)


def is_json_string(text: str) -> bool:
    """Whether it is a JSON string: in quotes and with an escape inside."""
    return text[:1] == text[-1:] == '"' and "\\" in text and _is_json(text)


def _is_json(text: str) -> bool:
    try:
        msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


def is_quoted(text: str) -> bool:
    """Whether one pair of double quotes encloses it."""
    return text[:1] in ('"', "“") and _QUOTED.fullmatch(text) is not None


def is_encoded(text: str) -> bool:
    """Whether it is base64, percent-encoded, or bytes in Postgres' hex format."""
    if " " in text:
        return False
    if "%" in text or text.startswith("\\x"):
        return _ENCODED.match(text) is not None
    try:
        return bool(base64.b64decode(text, validate=True).decode())
    except ValueError:
        return False


def is_wrapped(text: str) -> bool:
    """Whether it is in quotes, in brackets around quotes, in HTML tags, or is a struct as databases display it."""
    return text[:1] in _WRAPPED_STARTS and (_WRAPPED.fullmatch(text) is not None or is_struct(text))


_WRAPPED_STARTS = frozenset("'\"“„«[{b<")


def is_struct(text: str) -> bool:
    """Whether it is a struct or list as databases display them: in braces or brackets, without quotes inside."""
    return text[:1] in ("{", "[") and _STRUCT.fullmatch(text) is not None and not _is_json(text)


def has_html(text: str) -> bool:
    """Whether it has HTML entities: mostly it comes from a web page."""
    return "&" in text and HTML_ENTITY.search(text) is not None


def has_bytes_of_mail(text: str) -> bool:
    """Whether it has letters or quotes in quoted-printable, the encoding of mails."""
    return "=" in text and _QUOTED_PRINTABLE.search(text) is not None


def has_breaks_of_excel(text: str) -> bool:
    """Whether it has a carriage return as Excel's files write it."""
    return "_" in text and "_x000D_" in text  # searching a single character takes a fortieth of the time


def shows_image(text: str) -> bool:
    """Whether it has the placeholder of an image that was beside the text."""
    return text.startswith("<image>") or text.endswith("\n<image>")


def has_file(text: str) -> bool:
    """Whether it contains an image or another file as base64."""
    return ";" in text and _BASE64_FILE.search(text) is not None


def has_controls(text: str) -> bool:
    """Whether it has Windows-1252 quotes, dashes or euro signs decoded as Latin-1, which has controls there."""
    return not text.isascii() and any(map(text.__contains__, "\x80\x91\x92\x93\x94\x96\x97"))


def is_encoded_twice(text: str) -> bool:
    """Whether it is UTF-8 that was decoded with a single-byte encoding and then encoded as UTF-8 again."""
    if text.isascii():
        return False
    if any(rare in text and western.search(text) for rare, western in _MISREAD_WESTERN.items()):
        return True
    return any(rare in text and any(map(text.__contains__, read)) for rare, read in _MISREAD_LETTERS.items())


_CONTINUATION = bytes(range(0x80, 0xC0)).decode("cp1252", "ignore") + "\x81\x8d\x8f\x90\x9d"
_MISREAD_WESTERN = {
    "Ã": re.compile(f"Ã[{_CONTINUATION}]"),
    "Â": re.compile("Â[\xa0-\xbf]"),
    "€": re.compile(f"â€[{_CONTINUATION}]"),
}
"""Western letters, signs such as ©, and typographic quotes and dashes, decoded as Windows-1252. The keys are characters
that most texts lack, so that the search is nearly free."""
_WESTERN_MARKS = "äöüé\u2019\u201c\u201d\u2013\u2014\u2026"
_FREQUENT = {"cp1252": "иεηاा的。をスン\U0001f642", "cp1251": f"\u043e{_WESTERN_MARKS[4:]}"}
_FREQUENT |= dict.fromkeys(("mac_roman", "cp437"), _WESTERN_MARKS)
"""Letters that occur in almost every text of their script."""
_COMMON = frozenset("вРÄÇçàãÎ\u201c\u201d\u2019\u2013")


def _by_rare_character(letters: Mapping[str, str]) -> dict[str, list[str]]:
    """The wrongly decoded letters, by a character of theirs that most texts lack. All emoji share their first ones."""
    found = dict[str, list[str]]()
    for codec, some in letters.items():
        for letter in some:
            read = letter.encode()[: 3 if letter < "\U00010000" else 2].decode(codec)
            found.setdefault(next(one for one in read if one not in _COMMON), []).append(read)
    return found


_MISREAD_LETTERS = _by_rare_character(_FREQUENT)
