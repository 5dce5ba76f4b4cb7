"""Parquet is read in bounded memory, row for row, and a broken or encrypted file is refused and ends no process."""

import base64
import io
import subprocess
import sys
from collections import deque

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow.parquet import encryption

from finetune_api.dataset import Columns
from finetune_trainer.data.files import parquet
from finetune_trainer.data.files.parquet import ParquetRows, batch_rows
from finetune_trainer.errors import TrainerError
from tests.unit.finetune_trainer.data.files import (
    BIG,
    PARQUET,
    ROWS,
    as_parquet,
    as_parquet_table,
    records,
    split_file,
    to_row,
)


def test_parquet_with_bytes_that_are_no_text_is_a_bad_row(tmp_path):
    binary = pa.array([b"ok", b"\xff", b"fine"], pa.binary())
    column = pa.Array.from_buffers(pa.string(), 3, binary.buffers())
    pq.write_table(pa.table({"prompt": column}), tmp_path / "t.parquet")
    assert [record.problem for record in records(tmp_path / "t.parquet")] == [None, "the row is not UTF-8 text", None]


@pytest.mark.parametrize(
    ("column", "said"),
    [
        (pa.array([1]), "a number"),
        (pa.array([b"a"]), "bytes"),
        (pa.array([1], pa.timestamp("ns")), "of another type"),  # Python knows no nanoseconds
        (pa.array([10**9], pa.date32()), "of another type"),  # nor the year 2,700,000
        (pa.array([0], pa.timestamp("us")), "a time"),
        (pa.array([0], pa.date32()), "a date"),
        (pa.array([[("a", "b")]], pa.map_(pa.string(), pa.string())), "a map of Parquet"),
    ],
)
def test_parquet_with_columns_that_are_no_text_has_bad_rows(column, said, tmp_path):
    pq.write_table(pa.table({"prompt": column, "completion": ["x"]}), tmp_path / "t.parquet")
    (record,) = records(tmp_path / "t.parquet")
    assert to_row(record, Columns()).what == f"prompt is {said}, not text"


def test_parquet_counts_the_text_of_conversations_too(tmp_path):
    row = {"messages": [{"role": "user", "content": BIG.decode()}]}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "t.parquet")
    assert records(tmp_path / "t.parquet")[0].problem == "the row is longer than 4 MiB"


@pytest.mark.alike
@pytest.mark.parametrize(
    ("texts", "group", "most", "least"),
    [
        (["x" * 1_000_000] * 300, 300, 70, 1),  # one word of a dictionary: 1 MB in the file, 300 MB in memory
        (["x" * 1_000_000 + str(n) for n in range(40)], 40, 70, 30),
        (["short"] * 1000, 1000, 256, 256),
    ],
)
def test_parquet_takes_few_large_rows_at_once_and_many_small_ones(texts, group, most, least):
    table = pa.table({"messages": [[{"role": "user", "content": text}] for text in texts], "other": texts})
    file = pq.ParquetFile(io.BytesIO(as_parquet_table(table, row_group_size=group)))
    assert least <= batch_rows(file.metadata.row_group(0)) <= most


def test_parquet_puts_small_batches_together_up_to_what_a_block_holds(monkeypatch):
    """A file of 50,000 short rows in one group is read six rows at a time, which is no reason to look at six."""
    monkeypatch.setattr(parquet, "batch_rows", lambda _: 6)
    rows = [{"prompt": f"question {number}", "completion": "x" * (number // 500 * 1000)} for number in range(1000)]
    blocks = list(ParquetRows(io.BytesIO(as_parquet(rows, row_group_size=400)), "t").blocks({"prompt", "completion"}))
    assert [fields for block in blocks for fields in block.fields()] == rows
    sizes = [len(block) for block in blocks]
    assert sizes[0] == 258
    assert max(sizes[2:]) <= 138, "of a thousand letters each"
    assert len(sizes) < 10


@pytest.mark.parametrize(
    ("rows", "asked"),
    [
        (["short"] * 9500, [512, 4096]),
        (["x" * 4000] * 9500, [512, 512, 512, 512]),  # one word of a dictionary: 4 kB in the file, 38 MB in memory
        (["short"] * 5000 + ["x" * 4000] * 4500, [512, 4096, 512]),
    ],
    ids=["short", "long", "long from the second group on"],
)
def test_parquet_is_decoded_ahead_as_long_as_its_rows_take_what_its_end_says(rows, asked, monkeypatch):
    monkeypatch.setattr(parquet, "batch_rows", lambda _: 4096)
    seen, whole = [], pq.ParquetFile.iter_batches

    def spied(self, rows, *given, **named):
        seen.append(rows)
        return whole(self, rows, *given, **named)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", spied)
    fields = [{"prompt": text, "completion": str(number)} for number, text in enumerate(rows)]
    data = io.BytesIO(as_parquet(fields, row_group_size=4000))
    blocks = list(ParquetRows(data, "t").blocks({"prompt", "completion"}))
    assert [one for block in blocks for one in block.fields()] == fields
    assert max(map(len, blocks)) == 512
    assert seen == asked


class _Keys(encryption.KmsClient):
    """Keys that are wrapped in nothing."""

    def wrap_key(self, key_bytes, _):
        return base64.b64encode(key_bytes)

    def unwrap_key(self, wrapped_key, _):
        return base64.b64decode(wrapped_key)


def test_parquet_with_encrypted_columns_is_refused_and_its_other_columns_are_read(tmp_path):
    factory = encryption.CryptoFactory(lambda _: _Keys())
    settings = encryption.EncryptionConfiguration("footer", column_keys={"c": ["secret"]}, plaintext_footer=True)
    keys = factory.file_encryption_properties(encryption.KmsConnectionConfig(), settings)
    table = pa.table({"prompt": ["a"], "secret": ["b"]})
    pq.write_table(table, tmp_path / "t.parquet", encryption_properties=keys)
    with pytest.raises(TrainerError, match=r"t\.parquet: is an encrypted Parquet file"):
        records(tmp_path / "t.parquet", prompt="secret")
    assert [one.fields for one in records(tmp_path / "t.parquet")] == [{"prompt": "a"}]


def test_parquet_whose_end_is_broken_anywhere_is_refused_or_read_and_ends_no_process():
    wrecked = """
import io, random, sys
sys.path[:0] = {path!r}
from finetune_trainer.data.files.parquet import ParquetRows
from finetune_trainer.errors import TrainerError
whole = {whole!r}
for seed in range(400):
    data, chance = bytearray(whole), random.Random(seed)
    data[len(data) - 9 - chance.randrange(int.from_bytes(whole[-8:-4], "little"))] = chance.randrange(256)
    try:
        list(ParquetRows(io.BytesIO(data), "t.parquet").blocks({{"prompt", "completion"}}))
    except TrainerError:
        pass
"""
    program = wrecked.format(path=sys.path, whole=as_parquet(ROWS))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("at_once", [4096, 256, 2])
@pytest.mark.parametrize("broken", [0, 1, 4, 9])
def test_parquet_gives_all_rows_of_small_row_groups_before_the_broken_one(broken, at_once, tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "batch_rows", lambda _: at_once)
    rows = [{"prompt": f"question {n} " + "x" * 40} for n in range(30)]
    data = bytearray(as_parquet(rows, row_group_size=3))
    at = pq.ParquetFile(io.BytesIO(data)).metadata.row_group(broken).column(0)
    start = at.dictionary_page_offset or at.data_page_offset
    data[start : start + at.total_compressed_size] = b"\xff" * at.total_compressed_size
    (tmp_path / "t.parquet").write_bytes(data)
    found = []
    with split_file(tmp_path / "t.parquet") as file, pytest.raises(TrainerError, match=f"row group {broken} is broken"):
        deque(map(found.append, file.records()), 0)
    assert [str(one.position) for one in found] == [f"row group {n // 3} row {n % 3}" for n in range(3 * broken)]
    assert [one.fields for one in found] == rows[: 3 * broken]


def test_parquet_reads_conversations_and_only_the_columns_of_the_job(tmp_path):
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    pq.write_table(pa.Table.from_pylist([{"chat": messages, "other": 1}]), tmp_path / "t.parquet")
    found = records(tmp_path / "t.parquet", messages="chat")
    assert [record.fields for record in found] == [{"chat": messages}]


@pytest.mark.parametrize("how", ["written to", "replaced", "gone"])
def test_parquet_that_changes_while_it_is_read_is_refused(how, tmp_path):
    """Its bytes are hashed before its rows are read from its end."""
    path = tmp_path / "t.parquet"
    path.write_bytes(PARQUET)
    with split_file(path) as file:
        found = file.records()
        next(found)
        if how != "written to":
            path.unlink()
        if how != "gone":
            path.write_bytes(PARQUET + b"more")
        with pytest.raises(TrainerError, match=r"t\.parquet( has changed|: has changed| is not in)") as raised:
            list(found)
    assert raised.value.next_step


@pytest.mark.parametrize("step", ["shutil.copyfileobj", "tempfile.TemporaryFile"])
def test_a_copy_for_which_there_is_no_room_is_no_store_that_is_away(monkeypatch, step):
    """The next attempt would not find more room."""

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(step, full)
    with (
        pytest.raises(TrainerError, match="no room for a temporary copy") as raised,
        parquet.spooled(io.BytesIO(), "t"),
    ):
        pass
    assert raised.value.reason == "ArtifactFailed"
    assert "resources.ephemeralStorage" in raised.value.next_step


@pytest.mark.parametrize("step", ["__init__", "iter_batches"])
def test_too_little_memory_does_not_make_a_file_a_broken_one(check, tmp_path, monkeypatch, step):
    def short(*_, **__):
        raise pa.ArrowMemoryError("malloc of size 4000000000 failed")

    pq.write_table(pa.table({"prompt": ["a"], "completion": ["b"]}), tmp_path / "t.parquet")
    monkeypatch.setattr(pq.ParquetFile, step, short)
    verdict = check(spec={"dataset": {"train": {"uri": (tmp_path / "t.parquet").as_uri()}}}).verdict
    said = "t.parquet: the machine's memory was not enough to read it"
    assert (verdict.reason, verdict.message) == ("OutOfMemory", said)
    assert "row_group_size" in verdict.next_step
