"""The commands that rewrite rows with jq or Python, and those that must run before them. Pure."""

import json
import re

from finetune_trainer.data.files.csv_rows import SEPARATED_BY, SEPARATORS

_UNPACKED = {
    ", gzip": "gzip -dc",
    ", zstd": "zstd -dc",
    ", bzip2": "bzip2 -dc",
    ", xz": "xz -dc",
}
"""How to decompress a file, by its format in the verdict; the other commands do not do so."""
_ENCODED = re.compile(r", (UTF-16\w*)")
_OPENED = 'open("FILE", encoding="utf-8-sig")'
_AS_DICTS = {
    "CSV": (
        'csv, json; csv.field_size_limit(1 << 30); file = open("FILE", newline="", encoding="utf-8-sig"); '
        'file.readline().startswith("sep=") or file.seek(0)',
        "row in csv.DictReader(file, delimiter={mark})",
    ),
    "Parquet": (
        "json, pyarrow.parquet; text = lambda one: one.decode() if isinstance(one, bytes) else str(one)",
        'part in pyarrow.parquet.ParquetFile("FILE").iter_batches(256) for row in part.to_pylist()',
    ),
    "JSONLines": ("json", f"row in map(json.loads, filter(str.strip, {_OPENED}))"),
    "JSON": ("json", f"row in json.load({_OPENED})"),
}
"""By format: the modules that Python imports to read the file, and the loop over its rows, which are dicts."""


def quoted(program: str) -> str:
    """A program quoted for a shell; column names may contain quotes."""
    return "'{}'".format(program.replace("'", r"'\''"))


def key(name: str) -> str:
    """A name within an object, in jq syntax."""
    return json.dumps(name, ensure_ascii=False)


def field(column: str) -> str:
    """A column of a row, in jq syntax."""
    return f".[{key(column)}]"


def jq_rows(file_format: str, program: str) -> str:
    """The command that makes rows with a jq program, which gets one row at a time, whatever the file's format."""
    each = ".[] | " if _is_array(file_format) else ""
    return _jq("-c", file_format, each + program)


def jq_all(file_format: str, program: str) -> str:
    """The same with a program that gets all rows at once, as a list."""
    return _jq("-c", file_format, program) if _is_array(file_format) else _jq("-sc", file_format, program)


def _is_array(file_format: str) -> bool:
    return file_format.split(",", maxsplit=1)[0] == "JSON"


def _jq(flags: str, file_format: str, program: str) -> str:
    if file_format.startswith("JSON"):
        return f"jq {flags} {quoted(program)} FILE > ROWS.jsonl"
    return f"{python_rows(file_format)} | jq {flags} {quoted(program)} > ROWS.jsonl"


def python_rows(file_format: str, each: str = "row") -> str:
    """The command that prints a JSON object per row; `each` is a Python expression in which the row is a dict."""
    needs, rows = next(parts for name, parts in _AS_DICTS.items() if file_format.startswith(name))
    needs = ", ".join([*(module for module in ("ast", "re") if f"{module}." in each), needs])
    dumped = f"{each}, default=text" if file_format.startswith("Parquet") else each
    rows = rows.replace("{mark}", separator_in(file_format))
    return f"python3 -c {quoted(f'import {needs}; [print(json.dumps({dumped})) for {rows}]')}"


def separator_in(file_format: str) -> str:
    """The separator of a table's cells, as a Python literal."""
    declared = file_format.partition(SEPARATED_BY)[2][:1] or ","  # from Excel's own first line
    return json.dumps(next((mark for mark, name in SEPARATORS.items() if f", {name}" in file_format), declared))


def with_preparation(step: str, file_format: str) -> str:
    """The step, followed by the command to run first if the file must be decompressed or converted to UTF-8."""
    how = [command for name, command in _UNPACKED.items() if name in file_format]
    how += [f"iconv -f {name} -t UTF-8" for name in _ENCODED.findall(file_format)]
    if not how or "`" not in step or "FILE" not in step:
        return step
    first, *then = how  # decompression comes first
    return f"{step} Before that: `{' | '.join([f'{first} PACKED', *then])} > FILE`."
