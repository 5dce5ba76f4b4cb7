"""Texts that an earlier program damaged are told from healthy ones: code, LaTeX, paths, other scripts."""

import pytest

from finetune_trainer.data import damaged_text
from finetune_trainer.data.row_warnings import every_row_warnings, text_warnings
from finetune_trainer.data.rows import Position, Row, Rows, Turn

RUSSIAN, JAPANESE, CHINESE = "Привет, что нового?", "日本語テキスト", "这是我的书"
CODE = (
    r'print("a\nb\tc")', r"s.split('\n')", r'{"text": "a\nb\tc", "path": "C:\\new"}', r"re.sub(r'\s+\n', '', x)",
    "docker run \\\n  -it x", "#define X(a) \\\n  do { \\\n  } while (0)", '"\\alpha"', "a[1:] = f'{x}'",
    'x = """\\\nHint"""', "a = b + \\", r"s.replace(/[\u2018\u2019]/g, x)",
    '<image x="1"/>', "int &sum = a; b &= c;", "a=C3; b==E2", r'{"text": "He said \"hi\".\nBye", "score": 1}',
    r'printf("A\nB");', r"^\d{3}[\r\n]+$", r"sed 's/,/\n/g' FILE", r"(^|\n)#(.*)(\n|$)", r"\n{2,}",
    r"/[\u4e00-\u9fa5]+/", r'x = "caf\u00e9";', r"c = '\u00e9'",
)  # fmt: skip
FORMULAS = (
    r"$x \neq y$ and $\nu \times \tau$", r"\tanh x \to \theta \text{ok}", "a \\\\\nb \\\\\nc", r"$\nabla$. \noindent x",
    r"\thanks{a}. \title{b} \tiny", r"\begin{aligned} m &= 1\\n &= 2 \end{aligned}",
)  # fmt: skip
PATHS = (
    "C:\\dir\\", "a\\\\", r"C:\new\temp", r"DOMAIN\nancy", r"\\server\new\time", r"\\server\new. \\server\top",
    r".\nuget.exe. install", r"cd ..\notes",
)  # fmt: skip
FACES = ("not sure :-\\", "=\\", "hm :\\")
SCRIPTS = (
    "„Spaß“ « voilà » Ç\u2019à", "Ñandú ¿qué? \u201aÄrzte\u2018", "Île, 5€, √2", "Рёбра",
    "├── src\n│   └── x", "Óð Ísland Ð", "नमस्ते", "ƒ(x)",
    "Ѓорче, \u0455ид", "Ђорђе", "Ζήτω η λίμνη", "Český š",
    RUSSIAN, JAPANESE, CHINESE, "🙂", "Ä\u2013Ö\u2013Ü\u2013", "50 ¤, Øst",
)  # fmt: skip
DIALOGUES = (
    '"So," he said, "it is."', "“Well?” asked Ann. “No.”", "'Well?' asked Ann. 'No.'", "«Oui», dit-elle. «Non»",
)  # fmt: skip
SHORT = (
    "", "a\nb", "A", "Yes", "good", "ACGTACGT", "MKTAYIAKQRQI", "12+34=", "17%23", "deadbeef",
    "https://a.de/b%20c", "Internationalisation",
)  # fmt: skip
HEALTHY = (*CODE, *FORMULAS, *PATHS, *FACES, *SCRIPTS, *DIALOGUES, *SHORT, "data:image/svg+xml;base64,")
DAMAGED = (
    damaged_text.ends_escaped, damaged_text.has_written_breaks, damaged_text.has_escaped_breaks,
    damaged_text.is_json_string, damaged_text.is_encoded_twice, damaged_text.has_file, damaged_text.has_html,
    damaged_text.has_controls, damaged_text.is_struct, damaged_text.shows_image, damaged_text.has_bytes_of_mail,
    damaged_text.is_encoded, damaged_text.has_written_letters,
)  # fmt: skip


@pytest.mark.parametrize("text", HEALTHY)
def test_no_healthy_text_is_taken_for_a_damaged_one(text):
    assert [one.__name__ for one in DAMAGED if one(text)] == []


@pytest.mark.parametrize("text", DIALOGUES)
def test_a_dialogue_is_no_text_in_quotes(text):
    assert not damaged_text.is_wrapped(text)
    assert not damaged_text.is_quoted(text)


@pytest.mark.parametrize(
    ("told", "text"),
    [
        (damaged_text.has_written_breaks, r"Line one\nline two\tend"),
        (damaged_text.has_written_breaks, r"First.\nthen that"),
        (damaged_text.has_written_breaks, r"First.\\nThen that"),
        (damaged_text.has_written_breaks, r"to do\n* this"),
        (damaged_text.has_written_breaks, r"| a |\n| b |"),
        (damaged_text.has_written_breaks, r"of C\\D\n- a"),
        (damaged_text.has_written_breaks, r"Name:\tAnn"),
        (damaged_text.is_wrapped, '"He said ""yes"" and \\"no\\""'),
        (damaged_text.is_wrapped, "'It's so'"),
        (damaged_text.is_encoded, "SGVsbG8sIHdobyBhcmUgeW91Pw=="),
        (damaged_text.is_encoded, "Hello%2C%20you"),
        (damaged_text.is_encoded, r"\x48656c6c6f"),
        (damaged_text.has_escaped_breaks, "a\\\nb c"),
        (damaged_text.has_escaped_breaks, "One.\\\n\\\nTwo\\\\\\\nThree"),
        (damaged_text.ends_escaped, "yes,\\"),
        (damaged_text.ends_escaped, "the rest:\\"),
        (damaged_text.ends_escaped, "of C\\\\D\\\\\\"),
        (damaged_text.is_json_string, r'"Hello\nthere"'),
        (damaged_text.is_json_string, r'"He said \"hi\""'),
        (damaged_text.has_written_letters, r"\u4f60\u597d, caf\u00e9"),
        (damaged_text.has_file, f"See data:image/png;base64,{'iVBORw0KGgo' * 4}"),
        (damaged_text.has_html, "Gr&uuml;n &ndash;"),
        (damaged_text.has_bytes_of_mail, "Gr=C3=BCn"),
        (damaged_text.shows_image, "<image>\nWhat is it?"),
        (damaged_text.shows_image, "What is it?\n<image>"),
        (damaged_text.is_struct, "{text=Hello, lang=en}"),
        (damaged_text.is_struct, "[{user, Hello\nyou}]"),
    ],
)
def test_a_damaged_text_is_told(told, text):
    assert told(text)


@pytest.mark.parametrize("text", [r"One\nTwo", "a\\\nb", "yes,\\", r'"a\\b"', "Gr&uuml;n", "a\n<image>", "<image>\na"])
def test_one_of_many_rows_is_told_wherever_it_stands_among_them(text):
    texts, answers = ["a", text, "b"], ["x", "y", "z"]
    together, by_one = text_warnings(), text_warnings()
    for look in together:
        look.add(Rows(range(3), ("user", "assistant"), (texts, answers)))
    for look in by_one:
        for row in Rows(range(3), ("user", "assistant"), (texts, answers)).rows():
            look.add(row)
    assert [look.rows for look in together] == [look.rows for look in by_one]
    assert sum(look.rows for look in together) == 1


@pytest.mark.parametrize(
    ("text", "codec"),
    [
        ("schön", "cp1252"),
        ("It\u2019s", "cp1252"),
        ("It\u2019s", "mac_roman"),
        ("schön", "mac_roman"),
        ("It\u2019s", "cp437"),
        ("schön", "cp437"),
        ("nice 😀", "cp1252"),
        *((text, "cp1252") for text in (RUSSIAN, JAPANESE, CHINESE, "क्या है", "الكتاب", "Ζήτω η λίμνη")),
        (RUSSIAN, "cp1251"),
        ("так — да", "cp1251"),
    ],
)
def test_utf_8_that_was_read_in_an_old_encoding_is_told(text, codec):
    assert damaged_text.is_encoded_twice(text.encode().decode(codec, "ignore"))


@pytest.mark.parametrize(
    ("asked", "answer", "said"),
    [
        ("Translate {{ text }} {0}", "x{0}", "placeholder"),
        ("Say ${name} {0}", "x{0}", "placeholder"),
        ("q{0}", "Assistant: x{0}", "who speaks"),
        ("### User:\nq{0}", "x{0}", "who speaks"),
        ("“q{0}”", "“x{0}”", "within quotes, brackets"),
        ("<p>q{0}</p>", '<div id="a">x{0}</div>', "within quotes, brackets"),
        ('"q{0}"', '"x{0}"', "within quotes, brackets"),
        ("{q{0}, en}", "{x{0}, 0.9}", "within quotes, brackets"),
        ("b'q{0}'", "b'x{0}'", "within quotes, brackets"),
        ("['q{0}']", '["x{0}"]', "within quotes, brackets"),
        (r"Solve $x^{n} + \frac{a}{b}$ {0}", r"$\sqrt{x}{0}$", None),
        ('{"a": {0}}', '{"b": {0}}', None),
        ("[2, {0}]", "[{0}, 2]", None),
        ("User story {0}", "AI is {0}", None),
        ("Which tagline {0}?", "“Just do it, {0}”", None),
        ("«Quote {0}»", "its author {0}", None),
    ],
)
def test_what_all_rows_have_is_told_where_few_of_them_may_have_it(asked, answer, said):
    looks = every_row_warnings()
    for number in map(str, range(3)):
        turns = Turn("user", asked.replace("{0}", number)), Turn("assistant", answer.replace("{0}", number))
        for look in looks:
            look.add(Row(Position(line=2), turns))
    found = [look.what for look in looks if look.holds]
    assert [said in one for one in found] == [True] if said else found == []
