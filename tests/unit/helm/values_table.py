"""The table of all values in the chart's README, from the comments of values.yaml: `make chart-values` writes it."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

CHART = Path(__file__).parents[3] / "helm/finetune-operator"
README = CHART / "README.md"
HEADING = "## All values\n"

_KEY = re.compile(r"( *)([A-Za-z]+):(?: |$)")
_TOLD = re.compile(r" *# (-- )?(.*)")
_SETTING = re.compile(r"  # ([A-Za-z]+): (\S+) +# (.+)")
"""Commented-out settings, with the defaults in their comments."""


class Row(NamedTuple):
    """One value."""

    path: str
    default: str
    told: str


def rows() -> Iterator[Row]:
    """Every value with its own comment, in the file's order."""
    text = (CHART / "values.yaml").read_text(encoding="utf-8")
    values, above, told = yaml.safe_load(text), [], []
    for line in text.splitlines():
        if found := _SETTING.fullmatch(line):
            if above == ["settings"]:
                yield Row(f"settings.{found[1]}", found[2], found[3])
        elif found := _KEY.match(line):
            above = [*above[: len(found[1]) // 2], found[2]]
            if told:
                yield Row(".".join(above), _shown(_at(values, above)), " ".join(told))
            told = []
        elif found := _TOLD.fullmatch(line):
            if found[1]:
                told = [found[2]]
            elif told:
                told.append(found[2])
        else:
            told = []


def undescribed() -> list[str]:
    """Paths of values without a comment of their own or of a parent."""
    described = {row.path for row in rows()}
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    return [path for path in _leaves(values) if not _prefixes(path) & described]


def table() -> str:
    """The table below the heading."""
    lines = [f"| `{row.path}` | `{row.default}` | {row.told.replace('|', chr(92) + '|')} |\n" for row in rows()]
    return "".join(["\n| value | default | what it is |\n|---|---|---|\n", *lines])


def written() -> str:
    """The README with the current table at its end."""
    before, heading, _ = README.read_text(encoding="utf-8").partition(HEADING)
    return before + heading + table()


def _at(values: Any, path: list[str]) -> Any:
    for name in path:
        values = values[name]
    return values


def _shown(value: Any) -> str:
    if value in ("", None):
        return '""' if value == "" else "null"
    return yaml.safe_dump(value, default_flow_style=True, width=10_000, sort_keys=False).removesuffix("...\n").strip()


def _leaves(values: Any, above: str = "") -> Iterator[str]:
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{above}{name}.")
        else:
            yield f"{above}{name}"


def _prefixes(path: str) -> set[str]:
    parts = path.split(".")
    return {".".join(parts[: count + 1]) for count in range(len(parts))}


if __name__ == "__main__":
    README.write_text(written(), encoding="utf-8")
