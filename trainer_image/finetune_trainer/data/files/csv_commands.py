"""Commands that rewrite a table as standard CSV, without other quotes, spaces and escapes. Pure."""

import json

UNQUOTED = (
    "`python3 -c 'import csv; csv.field_size_limit(1 << 30); [print(*row) for row in "
    'csv.reader(open("FILE", newline="", encoding="utf-8-sig"))]\' > ROWS.csv` takes these quotes away.'
)


def unescaped(separator: str) -> str:
    """The next step if separators and line ends within texts are escaped by backslashes."""
    return (
        "Export the table without escapes, as CSV or JSON; or `python3 -c 'import csv, io, re, sys; "
        r'csv.field_size_limit(1 << 30); mean = {"n": "\n", "t": "\t", "r": "\r", "0": "", "N": ""}; '
        r'text = re.sub(r"\\(\r\n|[\\ntr0N\"\n\t,;|])", lambda one: chr(1 << 20 | ord(one[1][-1])), '
        'open("FILE", newline="", encoding="utf-8-sig").read()); back = lambda one: chr(ord(one[0]) & 127); '
        r'csv.writer(sys.stdout, lineterminator="\n").writerows([re.sub("[\U00100000-\U0010007f]", '
        "lambda one: mean.get(back(one), back(one)), cell) for cell in row] for row in "
        f'csv.reader(io.StringIO(text, newline=""), delimiter={json.dumps(separator)}))'
        r"' > ROWS.csv` takes backslashes away where they escape something, as MySQL has them; \N, no value, becomes "
        "an empty cell."
    )


def without_spaces(separator: str) -> str:
    """The next step if there is a space before quotes."""
    how = rewritten(separator, "skipinitialspace=True")
    return f"Quotes must directly follow the separator: {how} takes the spaces between them away."


def with_plain_quotes(separator: str) -> str:
    """The next step if cells are in typographic quotes; those within texts are kept."""
    mark = json.dumps(separator)[1:-1]
    how = rf's/\(^\|{mark}\)\(“\|„\)/\1"/g; s/\(”\|“\)\({mark}\|\r*$\)/"\2/g'
    return f"`sed '{how}' FILE > ROWS.csv` writes plain quotes around cells, where a word processor has put others."


def rewritten(separator: str, option: str) -> str:
    """A command that reads a table with an option of Python's csv.reader and writes it as standard CSV."""
    return (
        "`python3 -c 'import csv, sys; csv.field_size_limit(1 << 30); csv.writer(sys.stdout, "
        'lineterminator="\\n").writerows(csv.reader(open("FILE", newline="", encoding="utf-8-sig"), '
        f"delimiter={json.dumps(separator)}, {option}))' > ROWS.csv`"
    )
