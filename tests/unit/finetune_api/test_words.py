import pytest

from finetune_api.words import counted, cut, one_line, unstyled


@pytest.mark.parametrize(
    ("number", "words", "said"),
    [
        (0, ("row",), "0 rows"),
        (1, ("row",), "1 row"),
        (1200, ("row",), "1,200 rows"),
        (1, ("retry", "retries"), "1 retry"),
        (2, ("retry", "retries"), "2 retries"),
    ],
)
def test_a_number_is_said_with_its_noun_as_people_say_it(number, words, said):
    assert counted(number, *words) == said


@pytest.mark.parametrize(
    ("text", "as_bytes", "said"),
    [
        ("a step that fits in", False, "a step that fits in"),
        ("a sentence that is long", False, "a sentence that i..."),
        ("run `jq . FILE > ROWS`.", False, "run..."),
        ("run `jq .` or `sed p`.", False, "run `jq .` or..."),
        ("`jq .` is all of it, or", False, "`jq .` is all of ..."),
        ("ü" * 20, False, "ü" * 20),
        ("ü" * 20, True, "ü" * 8 + "..."),
        ("ü " * 6 + "`jq`", True, "ü ü ü ü ü ü..."),
    ],
)
def test_what_is_cut_ends_in_no_half_of_a_command(text, as_bytes, said):
    assert cut(text, 20, as_bytes=as_bytes) == said


NVIDIA = """stderr: Auto-detected mode as 'legacy'
nvidia-container-cli: initialization error: nvml error: driver not loaded
: unknown"""


@pytest.mark.parametrize(
    ("text", "plain", "line"),
    [
        (NVIDIA, NVIDIA, NVIDIA.replace("\n", " ")),
        ("\x1b[0;36m(EngineCore pid=7)\x1b[0;0m ValueError: no", *["(EngineCore pid=7) ValueError: no"] * 2),
        (" 10%\r 20%\r\nend\x00\x07", " 10%\n 20%\nend", "10% 20% end"),
        ("a\u2028\u200bb\tc", "a\u2028\u200bb\tc", "a b c"),
    ],
)
def test_others_words_steer_no_terminal(text, plain, line):
    assert (unstyled(text), one_line(text)) == (plain, line)
