"""The command by which people make rows anew with jq, and what goes before any command. Pure."""

import json

_UNPACKED = {
    ", gzip": "gzip -dc",
    ", zstd": "zstd -dc",
    ", bzip2": "bzip2 -dc",
    ", xz": "xz -dc",
    ", UTF-16": "iconv -f UTF-16 -t UTF-8",
}
"""How a file is read that is compressed, or written in UTF-16, as its format says it: no command reads it otherwise."""


def quoted(program: str) -> str:
    """A program as a shell takes it: names of columns may have a quote in them."""
    return "'{}'".format(program.replace("'", r"'\''"))


def key(name: str) -> str:
    """A name within an object, for jq."""
    return json.dumps(name, ensure_ascii=False)


def field(column: str) -> str:
    """A column of a row, for jq."""
    return f".[{key(column)}]"


def by_jq(file_format: str, program: str) -> str:
    """The command that makes rows by a program of jq, which gets one row at a time, whatever the file has them in."""
    each = ".[] | " if file_format.split(",", maxsplit=1)[0] == "JSON" else ""
    return f"jq -c {quoted(each + program)} FILE > ROWS.jsonl"


def unpacked_first(step: str, file_format: str) -> str:
    """A step, with the command before its own where those do not read the file as it is."""
    how = [command for name, command in _UNPACKED.items() if name in file_format]
    if not how or "`" not in step or "FILE" not in step:
        return step
    first, *then = how  # text is within what is compressed
    return f"{step} Before that: `{' | '.join([f'{first} PACKED', *then])} > FILE`."
