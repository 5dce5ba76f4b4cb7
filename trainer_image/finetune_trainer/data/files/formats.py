"""Detects the format of a file. Extensions decide if the job does not, below that of a compression.

The first bytes take precedence over both: a Parquet file, a web page or an archive is no text of rows, and for JSON
they tell whether it is an array or lines.
"""

import io
import re
from typing import NamedTuple

from finetune_api.dataset import DataFormat
from finetune_api.reasons import Reason
from finetune_trainer.data.files.compression import Compression, without_extension
from finetune_trainer.data.files.lines import BOM
from finetune_trainer.data.files.source import AS_UTF8, broken_file
from finetune_trainer.errors import TrainerError

_FORMATS: dict[str, DataFormat] = {
    ".csv": "CSV",
    ".tsv": "CSV",
    ".jsonl": "JSONLines",
    ".ndjson": "JSONLines",
    ".jsonlines": "JSONLines",
    ".jl": "JSONLines",
    ".json": "JSON",
    ".parquet": "Parquet",
    ".pq": "Parquet",
}
_EXTRACT_STEP = "Take the file of rows out of the archive; gzip, zstd, bzip2 or xz may compress it."
_ZIP_STEP, _TAR_STEP = (
    f"{_EXTRACT_STEP} `{command} FILE > ROWS` does it where no other file is there."
    for command in ("unzip -p", "tar -xOf")
)
_TO_PARQUET = (
    '`python3 -c \'from pyarrow import feather, ipc, parquet; file = open("FILE", "rb"); '
    r'is_stream = file.read(4) == b"\xff\xff\xff\xff"; file.seek(0); '
    'parquet.write_table(ipc.open_stream(file).read_all() if is_stream else feather.read_table("FILE"), '
    '"ROWS.parquet")\'` writes it as Parquet. All parts of a split that datasets has saved: '
    "datasets.load_from_disk('FOLDER/train').to_parquet('ROWS.parquet')."
)
_ORC_STEP = (
    '`python3 -c \'from pyarrow import orc, parquet; parquet.write_table(orc.read_table("FILE"), "ROWS.parquet")\'` '
    "writes it as Parquet."
)
_CHAT_STEP = (
    "With the name of who answers for ANSWERER: `python3 -c 'import json, re; from itertools import groupby; "
    r'said = re.findall(r"(?ms)^\W*\d[\d/.-]+,? [\d:.]+[^\n:]*?(?:\]| -) ([^\n:]+): (.*?)'
    r'(?=^\W*\d[\d/.-]+,? [\d:.]+|\Z)", open("FILE", encoding="utf-8-sig").read()); '
    r'turns = [(us, "\n".join(text.strip() for _, text in found)) '
    'for us, found in groupby(said, lambda one: one[0] == "ANSWERER")]; [print(json.dumps({"prompt": asked[1], '
    '"completion": answer[1]})) for asked, answer in zip(turns, turns[1:]) if answer[0]]'
    "' > ROWS.jsonl` makes rows of it."
)
_AVRO_STEP = (
    "Write the rows as JSON Lines: `fastavro FILE > ROWS.jsonl` does it, of Python's package fastavro[codecs]: without "
    "the codecs it reads no file of Spark, which compresses with snappy."
)
_YAML_STEP = (
    '`python3 -c \'import json, yaml; [print(json.dumps(row)) for part in yaml.load_all(open("FILE", '
    'encoding="utf-8-sig"), yaml.BaseLoader) if part for row in (part if isinstance(part, list) else [part])]\' > '
    "ROWS.jsonl` makes rows of it, by Python's package pyyaml, with all values as text."
)
_SQLITE_STEP = (
    "With the table's name for TABLE: `python3 -c 'import json, sqlite3; read = sqlite3.connect(\"FILE\"); "
    "read.row_factory = sqlite3.Row; [print(json.dumps(dict(row))) for row in "
    'read.execute("SELECT * FROM TABLE")]\' > ROWS.jsonl` makes rows of it.'
)
_SQL_STEP = (
    "Export the table as CSV with its header: `\\copy (SELECT ...) TO ROWS.csv CSV HEADER` of psql, "
    "`sqlite3 -csv -header FILE 'SELECT ...'`, or the export of another database's own tools."
)
_AS_ROWS = "Save the rows as CSV, JSON Lines or Parquet."
_COMPRESS = "Compress the file with gzip, zstd, bzip2 or xz instead."
_STEPS_BY_EXTENSION = {
    ".xlsx .xlsm .xlsb .xls": "Save the sheet as CSV; Excel calls it CSV UTF-8.",
    ".ods .numbers": "Save the sheet as CSV in UTF-8.",
    ".zip": _ZIP_STEP,
    ".tar .tgz": _TAR_STEP,
    ".7z .rar": _EXTRACT_STEP,
    ".arrow .feather": _TO_PARQUET,
    ".orc": _ORC_STEP,
    ".avro": _AVRO_STEP,
    ".tfrecord": "Write the table as Parquet.",
    ".db .sqlite .sqlite3": _SQLITE_STEP,
    ".sql": _SQL_STEP,
    ".pkl .pickle .pt .npy .npz .h5 .hdf5": _AS_ROWS,
    ".yaml .yml": _YAML_STEP,
    ".toml .xml .html .htm .md .pdf .docx .doc .rtf": _AS_ROWS,
    ".lz4 .lzma .z .br .snappy": _COMPRESS,
}
_FOREIGN_EXTENSIONS = {ending: step for endings, step in _STEPS_BY_EXTENSION.items() for ending in endings.split()}
_CONTROL_CHARACTERS = rb".{0,16}[\0-\x08\x0e-\x1f]"
"""Follows magic bytes that a CSV header may also begin with, such as PARENT and ORCID."""

_REFUSED = (
    rb"(\d{3}:? )?(entry |repository |file )?(not found|access (is )?denied|unauthorized|forbidden|bad credentials|"
    rb"invalid username or password|bad gateway|service unavailable|rate limit|too many requests|access to .{0,99} is "
    rb"restricted)\b"
)
"""How the error messages of servers begin."""

_FOREIGN: tuple[tuple[re.Pattern[bytes], str, str], ...] = (
    (re.compile(rb"PAR1"), "is a Parquet file", "Set the format to Parquet, or let the name end in .parquet."),
    (
        re.compile(rb"PARE" + _CONTROL_CHARACTERS, re.DOTALL),
        "is an encrypted Parquet file",
        "Write it without encryption.",
    ),
    (
        re.compile(rb"PK\x03\x04.{26}(\[Content_Types\]|_rels/|docProps/|xl/|word/|mimetype)", re.DOTALL),
        "is a spreadsheet or a document of an office program",
        "Save the sheet as CSV; Excel calls it CSV UTF-8.",
    ),
    (
        re.compile(rb"PK(\x03\x04|\x05\x06|\x07\x08)|\xd0\xcf\x11\xe0"),
        "is a zip archive or a spreadsheet",
        f"{_ZIP_STEP} Of a spreadsheet save the sheet as CSV.",
    ),
    (re.compile(rb"ARROW1|FEA1|\xff{4}"), "is an Arrow or Feather file", _TO_PARQUET),
    (re.compile(rb"%PDF-"), "is a PDF", _AS_ROWS),
    (re.compile(rb"SQLite format 3\0"), "is a database of SQLite", _SQLITE_STEP),
    (re.compile(rb"Obj\x01"), "is an Avro file", _AVRO_STEP),
    (re.compile(rb"ORC" + _CONTROL_CHARACTERS, re.DOTALL), "is an ORC file", _ORC_STEP),
    (re.compile(rb"\x80[\x02-\x05]"), "is a pickle file", _AS_ROWS),
    (re.compile(rb".{257}ustar", re.DOTALL), "is a tar archive", _TAR_STEP),
    (re.compile(rb"7z\xbc\xaf|Rar!\x1a"), "is an archive of 7-Zip or RAR", _EXTRACT_STEP),
    (re.compile(rb"\x04\x22\x4d\x18"), "is compressed with lz4", _COMPRESS),
    (
        re.compile(rb"\x89(PNG|HDF)\r|\xff\xd8\xff|GIF8|ID3[\2-\4]|\x7fELF|\x93NUMPY|\{\\rtf"),
        "is a picture, a sound, an array, a program or a document, and has no rows",
        _AS_ROWS,
    ),
    (re.compile(rb"\x1f\x8b|\x28\xb5\x2f\xfd|BZh[1-9]|\xfd7zXZ"), "is compressed twice", "Compress it once."),
    (
        re.compile(rb"version https://git-lfs"),
        "is a pointer of Git LFS, not the data itself",
        "Fetch the data with git lfs pull, and upload that.",
    ),
    (
        re.compile(
            rb'\s*((<\?xml[^>]*>\s*)?<error>|(\{[^\n]{0,60}"(error|detail|message)"\s*:\s*")?'
            + _REFUSED
            + rb'[^\n",;|\t]{0,200}("\s*(,\s*"(documentation_url|status|code)"[^\n]*)?[}\s]*)?\s*\Z)',
            re.IGNORECASE,
        ),
        "is what a server answers that does not give the file",
        "Fetch it again: check the address, and the key or the login that the server requires.",
    ),
    (re.compile(rb"\s*<\?xml[^>]*>(?!\s*<(!doctype )?html)", re.IGNORECASE), "is XML", _AS_ROWS),
    (
        re.compile(
            rb"\s*<(!doctype|!--|\?xml|(html|head|body|div|table|title|script|error)\b[^,;|\t\r\n]*>)", re.IGNORECASE
        ),
        "is a web page, not data",
        "Name the address of the file itself; the place may want a login, or show the file in a viewer.",
    ),
    (
        re.compile(
            rb"\W*\d{1,4}[/.-]\d\d?[/.-]\d{2,4},? \d\d?[:.]\d\d[^\n:,]{0,16}(:\d\d[^\n:,]{0,8})?(\]| -) [^\n:{]{1,40}: "
        ),
        "is a chat as messengers export it",
        _CHAT_STEP,
    ),
    (
        re.compile(
            rb"\s*+(?:(?:--|/\*)[^\n]*+\n\s*+)*+(?:(?:INSERT INTO|CREATE TABLE|DROP TABLE|PRAGMA|"
            rb"COPY \w[^\n]* FROM stdin)\b|SET \w+ = |\\restrict \w|BEGIN( TRANSACTION)?;)"
        ),
        "is a dump of a database, in SQL",
        _SQL_STEP,
    ),
    (re.compile(rb"(\s*#[^\n]*\n)*(---[ \t]*\r?\n|- +[\"']?\w+[\"']?:\s)"), "is YAML", _YAML_STEP),
    (re.compile(rb"\s*```"), "begins with a fence of Markdown", "Remove the lines with ``` from it."),
    (
        re.compile(rb"(\+--|[^\n|]*+\|[^\n]*+\n[ \t|]*+:?--)[-:|+ \t]*+(\r?\n|\Z)"),
        "is a table drawn for people, as Markdown and databases do",
        _AS_ROWS,
    ),
)
_NOT_TEXT: tuple[tuple[re.Pattern[bytes], str, str], ...] = (
    (re.compile(rb"\xff\xfe\0\0|\0\0\xfe\xff"), "is UTF-32 text", AS_UTF8),
    (
        re.compile(rb".{0,3}\0", re.DOTALL),
        "has NUL bytes at its beginning: it is not text, or UTF-16 without a byte order mark",
        AS_UTF8,
    ),
)


class FileFormat(NamedTuple):
    """How a file is read."""

    format: DataFormat
    compression: Compression | None
    how: tuple[str, ...] = ()
    """Further findings: the separator of cells, and the encoding of the text."""

    def __str__(self) -> str:
        """As shown in the verdict."""
        return ", ".join((self.format, *self.how, *([self.compression] if self.compression else ())))


def data_format(file_name: str, asked: DataFormat, field: str) -> DataFormat:
    """The requested format, or the one of the file's extension.

    Raises:
        TrainerError: SpecInvalid, format is Auto and the extension is unknown.
    """
    if asked != "Auto":
        return asked
    name = without_extension(file_name)
    found = next((kind for ending, kind in _FORMATS.items() if name.endswith(ending)), None)
    if found is None:
        step = next((step for ending, step in _FOREIGN_EXTENSIONS.items() if name.endswith(ending)), None)
        raise TrainerError(
            Reason.SPEC_INVALID,
            f"{field}: the ending of {file_name} does not tell its format",
            step or f"Set {field}.format to CSV, JSONLines, JSON or Parquet.",
        )
    return found


def separator_by_extension(file_name: str) -> str:
    """The separator of cells, unless the header says otherwise."""
    return "\t" if without_extension(file_name).endswith(".tsv") else ","


_BRACKETED_PREFIX = re.compile(rb"\[[^\]\n\"{}]*+\][^\n{}\[]*+\{")
"""A bracketed prefix before the object of a line, such as a time."""


def json_format(stream: io.BufferedReader, asked: DataFormat) -> DataFormat:
    """Which of the two JSON formats a stream has, by its first byte that is not white space.

    An array holds rows and an object is a row, whatever the file's name. Anything else is left to the reader to refuse.
    """
    start = stream.peek().removeprefix(BOM).lstrip()
    first = b"{" if _BRACKETED_PREFIX.match(start) else start[:1]
    return "JSON" if first == b"[" else "JSONLines" if first == b"{" else asked


def require_format(start: bytes, file_format: FileFormat, file_name: str) -> None:
    """Refuse a file that is plainly of another kind, by its first bytes after decompression.

    Raises:
        TrainerError: DatasetInvalid, with what it is and what to do.
    """
    in_parquet, start = file_format.format == "Parquet", start.removeprefix(BOM)
    for pattern, what, step in _FOREIGN[1:] if in_parquet else _FOREIGN + _NOT_TEXT:
        if pattern.match(start):
            raise broken_file(file_name, what, step)
    if in_parquet and start and not _FOREIGN[0][0].match(start):
        step = "Set the format that it has, CSV, JSONLines or JSON; if it should be Parquet, write it again."
        raise broken_file(file_name, "is not a Parquet file: it begins otherwise", step)
