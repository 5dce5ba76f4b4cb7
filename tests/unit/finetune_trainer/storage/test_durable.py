"""Folders are whole or absent, and their manifest knows every byte."""

import errno
import os

import pytest

from finetune_api.reasons import NEXT_STEP, Reason
from finetune_trainer.errors import TrainerError
from finetune_trainer.storage.durable import (
    bytes_of,
    is_within,
    read_manifest,
    remove_unfinished,
    whole_file,
    whole_folder,
    write_errors,
)


def write(final, text="content"):
    with whole_folder(final, made_by="test") as folder:
        (folder / "deep").mkdir()
        (folder / "deep" / "file").write_text(text)
        (folder / "deep" / "file").chmod(0o600)


def test_a_whole_folder_has_a_manifest_that_verifies(tmp_path):
    final = tmp_path / "a" / "b"
    write(final)
    manifest = read_manifest(final)
    assert manifest["made_by"] == "test"
    assert list(manifest["files"]) == ["deep/file"]
    assert manifest["files"]["deep/file"]["bytes"] == 7
    assert bytes_of(final) == 7 + (final / "manifest.json").stat().st_size
    assert (final / "deep" / "file").stat().st_mode & 0o777 == 0o644
    assert [path.name for path in final.parent.iterdir()] == ["b"]


def test_an_older_folder_is_replaced(tmp_path):
    write(tmp_path / "b", "old")
    write(tmp_path / "b", "new")
    assert (tmp_path / "b" / "deep" / "file").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_an_error_leaves_what_was_there_before(tmp_path):
    write(tmp_path / "b", "old")
    with pytest.raises(KeyError), whole_folder(tmp_path / "b") as folder:
        (folder / "half").write_text({}["absent"])
    assert (tmp_path / "b" / "deep" / "file").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_a_file_is_whole_or_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "trackers" / "runs.json"
    whole_file(path, b"before")

    def stops_half_way(self, content):
        with self.open("wb") as file:
            file.write(content[:3])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(path), "write_bytes", stops_half_way)
    with pytest.raises(TrainerError, match="No space left on device"):
        whole_file(path, b"afterwards")
    assert path.read_bytes() == b"before"


@pytest.mark.parametrize(
    ("name", "within"), [("a/b", True), ("..a", True), ("", False), ("/a", False), ("a/../../b", False)]
)
def test_a_name_does_not_lead_out_of_its_folder(name, within):
    assert is_within(name) == within


@pytest.mark.parametrize(
    ("number", "reason", "step"),
    [
        (errno.ENOSPC, "ArtifactFailed", NEXT_STEP[Reason.ARTIFACT_FAILED]),
        (errno.EDQUOT, "ArtifactFailed", NEXT_STEP[Reason.ARTIFACT_FAILED]),
        (errno.EROFS, "ArtifactFailed", "It is mounted read-only"),
        (errno.EACCES, "ArtifactFailed", "65532"),
        (errno.ESTALE, "StoreUnavailable", "Have the volume looked at"),
        (errno.EIO, "StoreUnavailable", "Have the volume looked at"),
        (errno.ENOTCONN, "StoreUnavailable", "Have the volume looked at"),
        (errno.ENOENT, "ArtifactFailed", "Somebody has deleted the folder"),
        (errno.EISDIR, "ArtifactFailed", "a folder in place of a file"),
        (errno.ENOTDIR, "ArtifactFailed", "There is a file where a folder must be"),
        (errno.ENAMETOOLONG, "ArtifactFailed", "a shorter path"),
    ],
)
def test_what_to_do_about_a_volume_depends_on_what_is_wrong_with_it(tmp_path, number, reason, step):
    """One that does not answer is met by the next attempt: its pod mounts it anew."""
    with pytest.raises(TrainerError, match=os.strerror(number)) as caught, write_errors(tmp_path):
        raise OSError(number, os.strerror(number))
    assert caught.value.reason == reason
    assert step in caught.value.next_step
    assert "spec.retryNonce" in caught.value.next_step


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(TrainerError, match="could not be written") as caught:
        write(tmp_path / "file" / "b")
    assert caught.value.reason == "ArtifactFailed"
    assert str(tmp_path / "file" / "b") in caught.value.message


@pytest.mark.parametrize("theirs", ["a file", "a link", "a link to nowhere"])
def test_a_folder_is_written_in_place_of_whatever_has_its_name_and_nothing_else_is_lost(tmp_path, theirs):
    final, elsewhere = tmp_path / "b", tmp_path / "elsewhere"
    if theirs == "a file":
        final.write_text("x")
    else:
        final.symlink_to(elsewhere)
    if theirs == "a link":
        elsewhere.mkdir()
        (elsewhere / "kept").write_text("x")
    write(final)
    assert read_manifest(final) is not None
    assert not final.is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", *(["elsewhere"] if theirs == "a link" else [])]
    assert theirs != "a link" or (elsewhere / "kept").exists()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"files": 3}', '{"files": {"absent": {"bytes": 1, "sha256": "0"}}}'])
def test_a_broken_manifest_is_none(tmp_path, text):
    (tmp_path / "manifest.json").write_text(text)
    assert read_manifest(tmp_path) is None


def test_a_changed_file_is_noticed_unless_nobody_asks(tmp_path):
    write(tmp_path / "b")
    (tmp_path / "b" / "deep" / "file").write_text("changed")
    assert read_manifest(tmp_path / "b") is None
    assert read_manifest(tmp_path / "b", verify=False) is not None


def test_rubbish_of_killed_writers_goes(tmp_path):
    (tmp_path / ".unfinished-x-1").mkdir()
    (tmp_path / ".unfinished-y.json-1").write_text("half")
    (tmp_path / "kept").mkdir()
    remove_unfinished(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


ROOM = r"[\d,]+ of [\d,]+ bytes are free there\)$"


def breaks_off(final, size, error):
    with whole_folder(final) as folder:
        (folder / "half").write_bytes(b"x" * size)
        raise error


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_told_with_what_was_written_and_what_is_free(tmp_path, number):
    said = rf"/b could not be written: {os.strerror(number)} \(5,000 bytes of it were written, {ROOM}"
    with pytest.raises(TrainerError, match=said):
        breaks_off(tmp_path / "b", 5000, OSError(number, os.strerror(number)))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(TrainerError, match=rf"{os.strerror(number)} \({ROOM}"), write_errors(tmp_path / "not" / "yet"):
        raise OSError(number, os.strerror(number))


def test_so_is_one_that_a_library_tells_of_in_its_own_words(tmp_path):
    class SafetensorError(Exception):
        pass

    said = rf"I/O error: No space left on device \(os error 28\) \(7 bytes of it were written, {ROOM}"
    with pytest.raises(TrainerError, match=said):
        breaks_off(tmp_path / "b", 7, SafetensorError("I/O error: No space left on device (os error 28)"))


def test_of_another_error_the_room_is_no_matter(tmp_path):
    with pytest.raises(TrainerError, match=r": Read-only file system$"):
        breaks_off(tmp_path / "b", 7, OSError(errno.EROFS, os.strerror(errno.EROFS)))
