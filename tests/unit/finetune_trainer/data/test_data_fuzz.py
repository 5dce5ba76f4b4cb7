"""Any bytes, as any format and compression, give a verdict: never a crash, and never a word of the data.

Files are made of nothing, or of a good file that was cut, overwritten and put together anew, before it was compressed
or after. More of them: pytest --hypothesis-profile=fuzz (make fuzz).
"""

import bz2
import gzip
import io
import json
import lzma

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finetune_api.job import FineTuneJobSpec
from finetune_api.verdict import DatasetVerdict
from finetune_trainer.data import ChatTokenizer, check_dataset
from tests.assets.tiny_model import NAME
from tests.unit.finetune_trainer.data.edits import EDITS, edited

SECRET = "Sekret!"  # no name that a column could have: those are shown, and an edit may put text where a name was
USER, ANSWER = {"role": "user", "content": f'a "{SECRET}"\n'}, {"role": "assistant", "content": SECRET}
ROWS = [
    {"prompt": f"{SECRET} ä,\n", "completion": f"b {SECRET}", "system": None, "messages": None},
    {"prompt": None, "completion": None, "system": SECRET, "messages": [USER, ANSWER]},
    {"prompt": SECRET, "completion": "", "system": "", "messages": []},
]


def as_parquet() -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(ROWS), sink, row_group_size=2)
    return sink.getvalue()


GOOD = {
    "csv": f'prompt,completion\n"{SECRET}\n""x""",b\r\n"{SECRET}",\n'.encode(),
    "jsonl": b"".join(json.dumps(row).encode() + b"\n" for row in ROWS),
    "json": json.dumps(ROWS, indent=1).encode(),
    "parquet": as_parquet(),
    "tsv": f'sep=;\nprompt;completion\n"{SECRET};";b\r\n'.encode("utf-16"),
}
COMPRESSED = {
    "": lambda data: data,
    ".gz": lambda data: gzip.compress(data, mtime=0),
    ".zst": zstandard.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
}
KINDS = [(ending, compression) for ending in GOOD for compression in COMPRESSED if compression not in (".bz2", ".xz")]
KINDS += [("json", ".bz2"), ("tsv", ".xz")]


@pytest.fixture(scope="module")
def tokenizer(tiny_model) -> ChatTokenizer:
    return ChatTokenizer.from_folder(tiny_model / NAME)


def verdict_on(folder, name: str, data: bytes, tokenizer: ChatTokenizer | None, **more) -> DatasetVerdict:
    (folder / name).write_bytes(data)
    spec = {
        "connectionRef": {"name": "c"},
        "baseModel": "m",
        "modelRef": {"name": "m"},
        "dataset": {"train": {"uri": f"file://{folder}/{name}"}},
        **more,
    }
    return check_dataset(FineTuneJobSpec.model_validate(spec), tokenizer=tokenizer, allow_local=True)


@pytest.mark.alike
@pytest.mark.parametrize(("ending", "compression"), KINDS)
def test_any_bytes_give_a_verdict_that_quotes_none_of_them(ending, compression, tokenizer, tmp_path):
    compress = COMPRESSED[compression]

    @settings(deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(
        st.binary(max_size=300) | EDITS.map(lambda edits: edited(GOOD[ending], edits)),
        EDITS,
        st.booleans(),
    )
    def check(data, later, counted):
        verdict = verdict_on(
            tmp_path, f"t.{ending}{compression}", edited(compress(data), later), tokenizer if counted else None
        )
        wire = verdict.model_dump_json(by_alias=True)
        assert DatasetVerdict.model_validate_json(wire) == verdict
        assert SECRET not in wire
        assert verdict.valid or verdict.next_step

    check()


VALUES = st.sampled_from(
    [None, SECRET, f"{SECRET} 2", "", 3, [], [USER], [ANSWER], [USER, ANSWER], {"messages": [USER]}]
)


def test_any_rows_with_two_answers_give_a_verdict_that_quotes_none_of_them(tokenizer, tmp_path):
    names = st.sampled_from(["prompt", "messages", "system", "chosen", "rejected"])

    @settings(deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(st.dictionaries(names, VALUES), max_size=3), EDITS)
    def check(rows, edits):
        data = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
        verdict = verdict_on(tmp_path, "t.jsonl", edited(data, edits), tokenizer, preference={})
        assert SECRET not in verdict.model_dump_json(by_alias=True)
        assert verdict.valid or verdict.next_step

    check()


def test_the_good_files_are_read_to_their_end(tmp_path):
    for ending, data in GOOD.items():
        train = verdict_on(tmp_path, f"good.{ending}", data, None).train
        assert (train.rows, train.bad_rows) == {"csv": (2, 1), "tsv": (1, 0)}.get(ending, (3, 1))
