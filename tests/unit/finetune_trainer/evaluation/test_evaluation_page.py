"""report.html: it says what came out, needs nothing else, and does nothing that a row would like it to do."""

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest

from finetune_api.reasons import Reason
from finetune_api.verdict import DatasetVerdict, SplitVerdict
from finetune_trainer.data.audit import Audited, Piece, printable
from finetune_trainer.data.rows import Position, Turn
from finetune_trainer.evaluation import page as report
from finetune_trainer.evaluation.contest import FEW_SHOT, TUNED, ZERO_SHOT, Contestant, contest
from finetune_trainer.evaluation.material import Material, Question
from tests.unit.finetune_trainer.jobs import make_job

HOSTILE = [
    "<script>alert(1)</script>",
    "</script><script src=https://evil.example/x.js></script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "{{ 7 * 7 }}{% for x in y %}",
    "]]><svg/onload=alert(1)>",
    "</style><link rel=stylesheet href=//evil.example>",
    "\u202egnp.exe \x1b[31m \x00",
    "&lt;b&gt; <!-- ",
]


class Parsed(HTMLParser):
    """Tags with their attributes, scripts, and the text that a person sees."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.scripts, self.text = [], [], ""
        self._in = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self._in.append(tag)

    def handle_endtag(self, tag):
        while self._in and self._in.pop() != tag:
            pass

    def handle_data(self, data):
        if self._in and self._in[-1] == "script":
            self.scripts.append(data)
        else:
            self.text += data


def made(tmp_path, texts, **more):
    questions = [Question(f"line {n}", (Turn("user", text),), "red") for n, text in enumerate(texts, 1)]
    found = {
        TUNED: Contestant(["red"] * len(texts), prompt_tokens=10.0),
        ZERO_SHOT: Contestant(list(texts)),
        FEW_SHOT: Contestant(list(texts), prompt_tokens=40.0, notes={"examples": 4}),
        "endpoint/rag": Contestant(
            [None] * len(texts), problem="<b>gone</b>", notes={"name": "rag", "rows": 0, "errors": len(texts)}
        ),
    }
    split = SplitVerdict(file="<i>train</i>.jsonl", format="CSV", rows=1200, tokens=70000)
    verdict = DatasetVerdict(valid=True, reason=Reason.VALID, message="m", train=split, warnings=["<u>odd</u>"])
    audited = [
        Audited(Position(line=1), [Piece(text, index % 2 == 0) for index, text in enumerate(texts)], 9, 4, True, 3)
    ]
    fields = {
        "dataset": verdict,
        "audited": audited,
        "curves": "<?xml version='1.0'?><svg><title>curves</title></svg>",
        "contest": contest(
            Material(questions, 8, sha256="0"), ["exactMatch", "chrF"], found, {TUNED: 0.5, ZERO_SHOT: 3}
        ),
        "settings": {"base model": "test/tiny<b>"},
    }
    return report.page(make_job(tmp_path, tmp_path), **(fields | more))


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    html = made(tmp_path_factory.mktemp("page"), HOSTILE)
    return html, Parsed(html)


def test_the_only_script_is_the_one_that_the_policy_names(hostile):
    _, found = hostile
    (script,) = found.scripts
    policy = next(tag["content"] for name, tag in found.tags if tag.get("http-equiv") == "Content-Security-Policy")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert [tag for tag, _ in found.tags].count("script") == 1


def test_rows_become_neither_tags_nor_attributes(hostile):
    _, found = hostile
    assert not {"img", "link", "iframe", "b", "u"} & {tag for tag, attributes in found.tags if attributes}
    assert {tag for tag, _ in found.tags if tag in ("img", "link", "iframe", "u", "object", "form")} == set()
    assert [name for _, attributes in found.tags for name in attributes if name.startswith("on")] == []


def test_nothing_is_fetched(hostile):
    html, found = hostile
    assert [
        tag for tag, attributes in found.tags if {"src", "href", "action", "srcset", "xlink:href"} & set(attributes)
    ] == []
    assert not re.search(r"@import|url\(", html)


def test_what_rows_say_is_shown_as_it_is_and_control_characters_are_written_out(hostile):
    html, found = hostile
    for text in HOSTILE[:7]:
        assert text in found.text
    assert r"\u202egnp.exe \x1b[31m \x00" in found.text
    assert not {"\u202e", "\x1b", "\x00"} & set(html)


def test_differences_are_in_the_points_of_the_percentages_above_them(hostile):
    text = " ".join(hostile[1].text.split())
    assert "0.0%+100.0 … +100.0" in text
    assert "in percentage points" in text


def test_the_verdict_on_each_baseline_stands_beside_its_name(hostile):
    """However many metrics there are: what is at the right end of a wide table has to be scrolled to."""
    text = " ".join(hostile[1].text.split())
    assert "answered by the tuned model is exactMatch chrF loss perplexity".replace(" ", "") in text.replace(" ", "")
    assert re.search(r"base model (with 4 examples )?better 0\.0%", text)


@pytest.mark.parametrize(
    ("value", "shown"), [(None, report._NONE), (0.5, "0.500"), (47.2391, "47.239"), (483805166.4, "483,805,166")]
)
def test_numbers_have_as_many_digits_as_count(value, shown):
    assert report._number(value) == shown


def test_the_page_tells_what_came_out(hostile):
    text = " ".join(hostile[1].text.split())
    for said in (
        "than each baseline that has a verdict; 1 has none",
        "base model with 4 examples",
        "75.0% saved",
        "<b>gone</b>",
        "<u>odd</u>",
    ):
        assert said in text
    assert "1,200" in text


def test_a_model_that_is_better_than_all_is_said_to_be(tmp_path):
    asked = Material([Question(f"line {n}", (Turn("user", f"{n}?"),), "red") for n in range(8)], 8)
    found = {TUNED: Contestant(["red"] * 8), ZERO_SHOT: Contestant(["x"] * 8)}
    html = made(tmp_path, ["a"], contest=contest(asked, ["exactMatch"], found, {}))
    assert "than everything that it was compared with" in html
    assert "on 8 rows of the test set" in html


def test_rows_on_which_tuning_lost_come_first_and_there_is_an_end_to_them(monkeypatch):
    monkeypatch.setattr(report, "SHOWN_ROWS", 3)
    questions = [Question(f"line {n}", (Turn("user", "?"),), "red") for n in range(5)]
    found = {
        TUNED: Contestant(["red", "x", "red", "x", "red"]),
        ZERO_SHOT: Contestant(["red", "x", "x", "red", "red"]),
    }
    rows = report.shown_rows(contest(Material(questions, 8), ["exactMatch"], found, {}))
    assert [(row.place, row.kind) for row in rows] == [("line 3", "lost"), ("line 2", "won"), ("line 0", "same")]


@pytest.mark.parametrize(
    ("lost", "won", "shown"), [(9, 9, "llwww"), (9, 1, "llllw"), (1, 9, "lwwww"), (9, 0, "lllll"), (1, 1, "lwsss")]
)
def test_many_rows_of_one_kind_leave_room_for_the_other(monkeypatch, lost, won, shown):
    monkeypatch.setattr(report, "SHOWN_ROWS", 5)
    right = [False] * lost + [True] * won + [True] * 9
    other = [True] * lost + [False] * won + [True] * 9
    questions = [Question(f"line {n}", (Turn("user", "?"),), "red") for n in range(len(right))]
    found = {
        name: Contestant(["red" if one else "x" for one in said]) for name, said in ((TUNED, right), (ZERO_SHOT, other))
    }
    rows = report.shown_rows(contest(Material(questions, 8), ["exactMatch"], found, {}))
    assert "".join(row.kind[0] for row in rows) == shown


@pytest.mark.parametrize("text", ["می\u200cرود", "क्\u200dष", "👩\u200d👧", "\u3000朝に", "a\nb"])
def test_what_is_part_of_a_script_is_shown_as_it_is(text):
    assert printable(text) == text


def test_a_very_long_answer_is_cut_with_a_word_on_it(tmp_path):
    text = Parsed(made(tmp_path, ["x" * 9000])).text
    assert "x" * 4000 + " … 5,000 characters more" in text
    assert "x" * 4001 not in text


def test_without_a_test_set_there_are_curves_and_the_audit(tmp_path):
    found = Parsed(made(tmp_path, ["a"], contest=None))
    assert "What carries loss" in found.text
    assert "Row by row" not in found.text
    assert [tag for tag, _ in found.tags].count("svg") == 1


def test_each_line_of_a_text_is_written_in_its_own_direction_whoever_says_it(tmp_path):
    """What stands in bdi says nothing of the direction of what is around it, which the first letter decides."""
    html = made(tmp_path, ["ما هو لون السماء؟"])
    assert '<div class="text" dir="auto"><bdi>user:</bdi> ما هو لون السماء؟</div>' in html
    assert re.search(r"\.text \{[^}]*unicode-bidi: plaintext", html)


@pytest.mark.parametrize("baselines", [{}, {ZERO_SHOT: Contestant([None], problem="it is gone")}], ids=["none", "gone"])
def test_a_job_without_baselines_is_told_from_one_whose_baselines_could_not_be_asked(tmp_path, baselines):
    question = Question("line 1", (Turn("user", "a"),), "red")
    found = {TUNED: Contestant(["red"], prompt_tokens=10.0), **baselines}
    text = Parsed(
        made(tmp_path, ["a"], contest=contest(Material([question], 8, sha256="0"), ["exactMatch"], found, {TUNED: 0.5}))
    ).text
    assert ("the job names no baseline" in text, "no baseline could be measured" in text) == (
        not baselines,
        bool(baselines),
    )
    assert ("tuned minus baseline" in text) == bool(baselines)
