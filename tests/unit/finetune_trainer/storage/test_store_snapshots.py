"""Attempts that share an object store: the newest has it, and goes on where the one before it stood."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest

from finetune_api.reasons import Reason
from finetune_trainer.attempt.fence import StoreFence
from finetune_trainer.errors import TrainerError
from finetune_trainer.output.snapshots import Snapshots
from finetune_trainer.storage.durable import whole_folder
from finetune_trainer.storage.store import Store


@pytest.mark.alike
def test_an_older_attempt_learns_of_a_newer_one(any_bucket):
    kept = Store(any_bucket.ref("fence"))
    first, second = StoreFence(kept, 1), StoreFence(kept, 2)
    assert first.take()
    assert not first.is_superseded()
    assert second.take()
    assert first.is_superseded()
    assert not second.is_superseded()
    assert not first.take()
    assert second.take(), "again is fine"


@pytest.mark.alike
def test_of_two_pods_of_one_attempt_the_later_has_the_store(any_bucket):
    kept = Store(any_bucket.ref("twins"))
    first, second = StoreFence(kept, 1), StoreFence(kept, 1)
    assert first.take()
    assert not first.is_superseded()
    assert second.take()
    assert (first.is_superseded(), second.is_superseded()) == (True, False)


@pytest.fixture
def output(tmp_path):
    return write_output(tmp_path / "output", 7)


def write_output(output: Path, step: int) -> Path:
    with whole_folder(output / "checkpoints" / f"step-{step:08}", step=step) as folder:
        (folder / "model.safetensors").write_bytes(os.urandom(1000))
    (output / "evaluation").mkdir(exist_ok=True)
    (output / "evaluation" / "tuned-1.jsonl").write_text("{}\n" * step)
    (output / "metrics.jsonl").write_text("{}\n" * step)
    (output / "code-model").mkdir(exist_ok=True)
    (output / "code-model" / "not-kept").write_text("x")
    return output


def content(output: Path) -> dict[str, bytes]:
    kept = [path for path in output.rglob("*") if path.is_file() and "code-model" not in path.parts]
    return {path.relative_to(output).as_posix(): path.read_bytes() for path in kept}


@pytest.mark.alike
def test_a_snapshot_comes_back_on_another_node(any_bucket, output, tmp_path):
    kept = Store(any_bucket.ref("snap"))
    first = Snapshots(kept, output, 1)
    first.restore()
    assert first.changed() is False, "what is there when it starts is what came back"
    write_output(output, 14)
    assert first.changed()
    first.take()
    assert not first.changed()
    second = Snapshots(kept, tmp_path / "second", 2)
    second.restore()
    assert content(tmp_path / "second") == content(output)
    assert not second.changed()


@pytest.mark.alike
def test_what_stays_the_same_is_uploaded_once_and_what_is_not_used_goes(any_bucket, output):
    snapshots = Snapshots(Store(any_bucket.ref("once")), output, 1)
    snapshots.take()
    any_bucket.asked.clear()
    shutil.rmtree(output / "evaluation")
    write_output(output, 14)
    snapshots.take()
    uploaded = [path for method, path in any_bucket.asked if method == "PUT"]
    assert len(uploaded) == 4, "two files of the new checkpoint, answers that are as the record, and the list"
    assert len([name for name in any_bucket.names("once") if name.endswith(".json")]) == 1
    assert len([name for name in any_bucket.names("once") if "/objects/" in name]) == 5


@pytest.mark.alike
def test_what_others_leave_beside_snapshots_is_nobodys_trouble(any_bucket, output, tmp_path):
    kept = Store(any_bucket.ref("others"))
    for name in ("README", "notes.json", "000001/draft.json"):
        any_bucket.write(f"others/state/{name}", b"{}")
    Snapshots(kept, output, 1).take()
    second = Snapshots(kept, tmp_path / "second", 2)
    second.restore()
    assert content(tmp_path / "second") == content(output)
    second.forget()
    assert any_bucket.names("others") == ["state/000001/draft.json", "state/README", "state/notes.json"]


def test_the_record_alone_is_nothing_new(any_bucket, output):
    snapshots = Snapshots(Store(any_bucket.ref("record")), output, 1)
    snapshots.take()
    (output / "metrics.jsonl").write_text("{}\n" * 100)
    assert not snapshots.changed()


def test_a_checkpoint_that_gets_its_name_meanwhile_is_no_trouble(bucket, output, monkeypatch):
    snapshots = Snapshots(Store(bucket.ref("renamed")), output, 1)
    unfinished = output / "checkpoints" / ".unfinished-step-00000008-d95209d4"
    unfinished.mkdir()
    scandir = os.scandir

    def renames_first(path="."):
        if Path(path) == unfinished:
            unfinished.rename(output / "checkpoints" / "step-00000008")
        return scandir(path)

    with monkeypatch.context() as patched:
        patched.setattr(os, "scandir", renames_first)
        assert snapshots.changed()
    assert not unfinished.exists()
    snapshots.take()
    assert not snapshots.changed()


@pytest.mark.alike
def test_a_newer_attempts_snapshot_counts_however_late_an_older_one_writes(any_bucket, output, tmp_path):
    kept = Store(any_bucket.ref("order"))
    older, newer = Snapshots(kept, output, 1), Snapshots(kept, write_output(tmp_path / "newer", 3), 2)
    older.take()
    newer.take()
    assert not [name for name in any_bucket.names("order") if name.startswith("state/000001/")], (
        "it is not needed any more"
    )
    write_output(output, 21)
    older.take()
    older.take()
    third = Snapshots(kept, tmp_path / "third", 3)
    third.restore()
    assert content(tmp_path / "third") == content(tmp_path / "newer")
    older.forget()
    assert [name for name in any_bucket.names("order") if name.startswith("state/000002/")]


@pytest.mark.alike
def test_a_damaged_file_is_left_out_and_the_rest_comes_back(any_bucket, output, tmp_path, caplog):
    kept = Store(any_bucket.ref("damaged"))
    Snapshots(kept, output, 1).take()
    weights = hashlib.sha256((output / "checkpoints/step-00000007/model.safetensors").read_bytes()).hexdigest()
    any_bucket.write(f"damaged/state/000001/objects/{weights}", b"x")
    Snapshots(kept, tmp_path / "back", 2).restore()
    assert set(content(output)) - set(content(tmp_path / "back")) == {"checkpoints/step-00000007/model.safetensors"}
    assert "is damaged in the store" in caplog.text


def test_a_snapshot_writes_nothing_outside_of_the_output_folder(bucket, output, tmp_path):
    Snapshots(Store(bucket.ref("names")), output, 1).take()
    name = "names/state/000001/000001.json"
    files = json.loads(bucket.read(name))["files"]
    record = files["metrics.jsonl"]
    bucket.write(
        name, json.dumps({"files": files | {"../outside": record, str(tmp_path / "absolute"): record}}).encode()
    )
    (tmp_path / "other").mkdir()
    Snapshots(Store(bucket.ref("names")), tmp_path / "other", 2).restore()
    assert (tmp_path / "other" / "metrics.jsonl").read_bytes() == (output / "metrics.jsonl").read_bytes()
    assert not (tmp_path / "outside").exists()
    assert not (tmp_path / "absolute").exists()


@pytest.mark.alike
def test_a_snapshot_whose_upload_broke_does_not_count(any_bucket, output, tmp_path):
    kept = Store(any_bucket.ref("torn"), patience=0)
    Snapshots(kept, output, 1).take()
    before = content(output)
    write_output(output, 14)
    any_bucket.fault = lambda method, path: "break" if method == "PUT" and path.endswith(".json") else None
    with pytest.raises(TrainerError) as refused:
        Snapshots(kept, output, 1).take()
    assert refused.value.reason == Reason.STORE_UNAVAILABLE
    any_bucket.fault = lambda _method, _path: None
    Snapshots(kept, tmp_path / "back", 2).restore()
    assert content(tmp_path / "back") == before
