"""report.html by day and by night: what is written can be read on what is behind it, and paper stays light."""

import re
from importlib.resources import files

import pytest

from finetune_trainer.output import loss_plot

STYLE = (files("finetune_trainer") / "evaluation" / "page.css").read_text(encoding="utf-8")
DARK = "@media screen and (prefers-color-scheme: dark)"
COLOUR = re.compile(r"#[0-9a-f]{3}(?:[0-9a-f]{3})?\b")

TEXT = [
    ("--ink", "--paper"), ("--ink", "--back"), ("--soft", "--paper"), ("--soft", "--back"), ("--ink", "--mark"),
    ("--good", "--paper"), ("--bad", "--paper"), ("--even", "--paper"), ("--on-blue", "--blue"),
    ("--good", "--good-back"), ("--bad", "--bad-back"), ("--even", "--even-back"),
]  # fmt: skip


def palette(dark: bool) -> dict[str, str]:
    """The colours by their names; what the dark one leaves out is the light one's."""
    light, _, rest = STYLE.partition(DARK)
    named = {}
    for block in (light, rest)[: 1 + dark]:
        root = re.search(r":root \{([^}]*)\}", block)
        assert root
        named |= dict(re.findall(r"(--[a-z-]+): (#[0-9a-f]+)", root[1]))
    return named


def rgb(colour: str) -> tuple[float, ...]:
    digits = colour.removeprefix("#")
    digits = "".join(2 * one for one in digits) if len(digits) == 3 else digits
    return tuple(int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4))


def luminance(colour: tuple[float, ...]) -> float:
    """As WCAG 2 has it."""
    red, green, blue = (one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in colour)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def by_night(colour: str, paper: str) -> tuple[float, ...]:
    """What invert(1) hue-rotate(180deg) makes of a colour, on that paper by mix-blend-mode: screen."""
    red, green, blue = (1 - one for one in rgb(colour))
    grey = 2 * (0.213 * red + 0.715 * green + 0.072 * blue)
    turned = (min(1.0, max(0.0, grey - one)) for one in (red, green, blue))
    return tuple(1 - (1 - one) * (1 - behind) for one, behind in zip(turned, rgb(paper), strict=True))


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize(("text", "behind"), TEXT, ids=lambda name: name)
def test_every_text_can_be_read_on_what_is_behind_it(text: str, behind: str, dark: bool) -> None:
    named = palette(dark)
    assert contrast(rgb(named[text]), rgb(named[behind])) >= 4.5


def test_a_dark_page_has_a_colour_of_its_own_for_each() -> None:
    assert palette(dark=True).keys() == palette(dark=False).keys()
    rest = re.sub(r":root \{[^}]*\}", "", STYLE)
    assert COLOUR.findall(rest) == [], "a colour without a name is the same by night"


def test_paper_is_never_dark() -> None:
    assert STYLE.count("prefers-color-scheme") == STYLE.count(DARK) == 1


@pytest.mark.parametrize("line", ["#000000", loss_plot._INK, "#2f6db3", loss_plot._VALIDATION])
def test_what_the_plot_is_drawn_with_can_be_told_from_a_dark_page(line: str) -> None:
    assert "svg { filter: invert(1) hue-rotate(180deg); mix-blend-mode: screen; }" in STYLE
    paper = palette(dark=True)["--paper"]
    assert by_night("#ffffff", paper) == pytest.approx(rgb(paper)), "its own paper is the page's"
    assert contrast(by_night(line, paper), rgb(paper)) >= 4.5
