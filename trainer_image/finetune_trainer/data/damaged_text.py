"""Texts that an earlier program has escaped, quoted or read in another encoding: what one text tells of it. Pure.

Each is asked of many texts put together first, wherever none of them has what a single one must have.
"""

import base64
import re
from collections.abc import Iterable, Iterator, Mapping

import msgspec

_WRITTEN_BREAK = re.compile(r"""\\n(?![a-z"'\])?/{]|[*+|](?! ))""")
"""Of a text that was escaped twice. Behind it a small letter is LaTeX's or of a path, a quote is of a program, and what
ends or repeats something is of a pattern."""
_OF_LATEX = (
    "abla|ag|atural|binom|e|earrow|eg|eq|ewcommand|ewline|ewpage|exists|geq|i|leq|mid|ode|oindent|onumber|ormal\\w*|ot|otin|"
    "parallel|prec|subseteq|succ|u|warrow|a[nu]|anh|ext\\w*|frac|hanks|herefore|heta|ilde|imes|iny|itle|o|op|riangle\\w*"
)
"""Commands that begin with n or t, without that letter."""
_WRITTEN_PAIR = re.compile(rf"(?<!\\)\\+[nt](?!(?:{_OF_LATEX})(?![a-z]))")
"""Of a text that was escaped twice, or more often."""
_PAIR = re.compile(r"\\(.?)", re.DOTALL)
_ESCAPED = frozenset("ntr0\\")
_PATH = re.compile(r"\b[A-Za-z]:\\|(?:\A|\s)(?:\\\\|\.{1,2}\\)\w")
"""Beginning of one of Windows."""
_WRITTEN_LETTER = re.compile(r"(?:\\u[0-9a-fA-F]{4})+")
_PLAIN_BREAK = re.compile(r"(?<!\\)(?:\\\\)*\n")
_ESCAPED_BREAK = re.compile(r"""[^\s\\"'](?:\\\\)*\\\n""")
"""Where a line goes on in a shell or a program, a space or a quote stands before the backslash."""
_OF_PROGRAMS = ("", " ", '"', "'")
"""What stands before the backslash there, or nothing."""
_OF_A_FACE = re.compile(r"(?:\A|\s)[:;=][-'o]?\Z")
"""What stands before a backslash that is a mouth."""
OF_HTML = re.compile(
    "&(amp|lt|gt|quot|apos|nbsp|#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z](acute|grave|circ|uml|tilde|cedil|ring)|szlig|"
    "(ae|AE)lig|[oO]slash|[lr][sd]quo|[lr]aquo|[nm]dash|hellip|euro|pound|copy|trade|deg);"
)
_OF_STRUCTS = re.compile(r"""[{\[][^"']*[}\]]""")
_IN_QUOTES = r""""(?:[^"\\]|\\.|"")*+"|“[^“”]*+”"""
_QUOTED = re.compile(_IN_QUOTES, re.DOTALL)
"""As a whole: a text with quotes at both ends may be a dialogue."""
_WRAPPED = re.compile(
    rf"""{_IN_QUOTES}|b?'(?:[^'\\]|\\.|''|(?<=\w)'(?=\w))*+'|„[^„“]*+“|«[^«»]*+»|<(p|div|span|td|body|html)\b[^>]*>.*</\1>|\[\s*(?:'[^']*'|"[^"]*")\s*\]""",
    re.DOTALL,
)
_ENCODED = re.compile(r"\\x(?:[0-9a-f]{2})++\Z|[^%:]*%(?:20|2C|0A|[C-E][0-9A-F])")
_OF_MAILS = re.compile("=(?:C3|E2=80)=")
_OF_FILES = re.compile(r";base64,[A-Za-z0-9+/]{32}")


def has_written_breaks(text: str) -> bool:
    """Whether line breaks or tabs stand in it as a backslash and a letter alone: programs have both."""
    if "\n" in text or not ("\\n" in text or "\\t" in text):
        return False
    return any(_out_of_quotes(_alone(_WRITTEN_BREAK, text), text)) or _is_escaped(text)


def _alone(wanted: re.Pattern[str], text: str) -> Iterator[re.Match[str]]:
    """Where it stands without a backslash before it; asked of re itself, that takes twenty times as long."""
    return (one for one in wanted.finditer(text) if text[one.start() - 1 : one.start()] != "\\")


def _out_of_quotes(found: Iterable[re.Match[str]], text: str) -> Iterator[re.Match[str]]:
    """Those that do not stand within double quotes: there they would be a program's, or JSON's."""
    quotes = place = 0
    for one in found:
        quotes, place = quotes + text.count('"', place, one.start()), one.start()
        if quotes % 2 == 0:
            yield one


def _is_escaped(text: str) -> bool:
    """Whether all of its backslashes escape something, and several of them line breaks and tabs between words.

    Behind the end of a sentence one is enough.
    """
    if _has_other_pairs(text):
        return False
    found = list(_out_of_quotes(_WRITTEN_PAIR.finditer(text), text))
    is_program = any(text[one.end() : one.end() + 1] in ('"', "'", "`", ")", "]") for one in found)
    ends = any(text[one.start() - 1] in ".!?:;," for one in found if one.start())
    return not is_program and "'" not in text and (ends or len(found) > 1)


def _has_other_pairs(text: str) -> bool:
    """Whether any backslash escapes no line break or tab, or is of a path: then others are no escapes, either."""
    return not _ESCAPED.issuperset(_PAIR.findall(text)) or _PATH.search(text) is not None


def has_written_letters(text: str) -> bool:
    """Whether it has letters as JSON may write them, where a word may begin or go on: patterns have others before."""
    if "\\u" not in text:
        return False
    found = ((one, text[max(0, one.start() - 1) : one.start()]) for one in _WRITTEN_LETTER.finditer(text))
    within = (one for one, before in found if before.isalnum() or before.isspace() or before in ".,:;!?")  # or nothing
    return any(_out_of_quotes(within, text))


def has_escaped_breaks(text: str) -> bool:
    """Whether a backslash stands before each line break in it, as databases write those within a cell."""
    first = text.find("\n")  # mostly that alone tells
    if first < 1 or text[first - 1] != "\\":
        return False
    return _PLAIN_BREAK.search(text) is None and _ESCAPED_BREAK.search(text) is not None


def ends_escaped(text: str) -> bool:
    """Whether a backslash ends it that escapes what stood behind it: it may be of a path of Windows, too, or a face."""
    if not text.endswith("\\"):
        return False
    before = text.rstrip("\\")
    if before[-1:] in _OF_PROGRAMS or _OF_A_FACE.search(before[-3:]):
        return False
    return (len(text) - len(before)) % 2 == 1 and not _has_other_pairs(before)


def is_json_string(text: str) -> bool:
    """Whether it is text as JSON writes it, with quotes around it and something escaped within."""
    return text[:1] == text[-1:] == '"' and "\\" in text and _is_json(text)


def _is_json(text: str) -> bool:
    try:
        msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


def is_quoted(text: str) -> bool:
    """Whether one pair of double quotes stands around it."""
    return text[:1] in ('"', "“") and _QUOTED.fullmatch(text) is not None


def is_encoded(text: str) -> bool:
    """Whether it is text in base64 or as addresses have it, or bytes as Postgres shows them."""
    if " " in text:
        return False
    if "%" in text or text.startswith("\\x"):
        return _ENCODED.match(text) is not None
    try:
        return bool(base64.b64decode(text, validate=True).decode())
    except ValueError:
        return False


def is_wrapped(text: str) -> bool:
    """Whether quotes stand around it, or brackets around those, or it is a struct as databases show it."""
    return text[:1] in _BEGIN_WRAPPED and (_WRAPPED.fullmatch(text) is not None or is_struct(text))


_BEGIN_WRAPPED = frozenset("'\"“„«[{b<")


def is_struct(text: str) -> bool:
    """Whether it stands in braces or brackets as databases show structs and lists, which have no quotes within."""
    return text[:1] in ("{", "[") and _OF_STRUCTS.fullmatch(text) is not None and not _is_json(text)


def has_html(text: str) -> bool:
    """Whether it has what HTML writes for characters that mean something to it: mostly it comes from a web page."""
    return "&" in text and OF_HTML.search(text) is not None


def has_bytes_of_mail(text: str) -> bool:
    """Whether letters or quotes stand in it as mails write their bytes (quoted-printable)."""
    return "=" in text and _OF_MAILS.search(text) is not None


def has_breaks_of_excel(text: str) -> bool:
    """Whether it has what Excel's files write for a carriage return."""
    return "_" in text and "_x000D_" in text  # a single character is looked for in a fortieth of the time


def shows_image(text: str) -> bool:
    """Whether the mark for a picture stands in it, which was beside the text elsewhere."""
    return text.startswith("<image>") or text.endswith("\n<image>")


def has_file(text: str) -> bool:
    """Whether the bytes of a picture or another file stand in it, as text."""
    return ";" in text and _OF_FILES.search(text) is not None


def has_controls(text: str) -> bool:
    """Whether it has quotes, dashes or euros of Windows-1252 that were read as Latin-1, which has controls there."""
    return not text.isascii() and any(map(text.__contains__, "\x80\x91\x92\x93\x94\x96\x97"))


def is_encoded_twice(text: str) -> bool:
    """Whether it is UTF-8 that an earlier program read in an encoding of single bytes, and wrote as UTF-8 then."""
    if text.isascii():
        return False
    if any(begun in text and western.search(text) for begun, western in _OF_WESTERN.items()):
        return True
    return any(rare in text and any(map(text.__contains__, read)) for rare, read in _OF_LETTERS.items())


_BEHIND = bytes(range(0x80, 0xC0)).decode("cp1252", "ignore") + "\x81\x8d\x8f\x90\x9d"
_OF_WESTERN = {
    "Ã": re.compile(f"Ã[{_BEHIND}]"),
    "Â": re.compile("Â[\xa0-\xbf]"),
    "€": re.compile(f"â€[{_BEHIND}]"),
}
"""Letters of western languages, signs such as ©, and typographic quotes and dashes, read as Windows-1252: by a
character that most texts lack, which is looked for in next to no time."""
_MARKS_OF_TEXT = "äöüé\u2019\u201c\u201d\u2013\u2014\u2026"
_FREQUENT = {"cp1252": "иεηاा的。をスン\U0001f642", "cp1251": f"\u043e{_MARKS_OF_TEXT[4:]}"}
_FREQUENT |= dict.fromkeys(("mac_roman", "cp437"), _MARKS_OF_TEXT)
"""Letters that other scripts have in next to every text, and those that western ones have."""
_USUAL = frozenset("вРÄÇçàãÎ\u201c\u201d\u2019\u2013")


def _by_a_rare_character(letters: Mapping[str, str]) -> dict[str, list[str]]:
    """How they look then, by a character of it that most texts lack. All emoji begin alike."""
    found = dict[str, list[str]]()
    for codec, some in letters.items():
        for letter in some:
            read = letter.encode()[: 3 if letter < "\U00010000" else 2].decode(codec)
            found.setdefault(next(one for one in read if one not in _USUAL), []).append(read)
    return found


_OF_LETTERS = _by_a_rare_character(_FREQUENT)
