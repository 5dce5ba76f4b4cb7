"""The model cache: filled from folders and archives that nobody trusts, whole or not at all, safetensors only."""

import argparse
import errno
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import threading
import zipfile
from pathlib import Path

import pytest
import zstandard

from finetune_api.exit_codes import ExitCode
from finetune_api.reasons import Reason
from finetune_trainer import cache
from finetune_trainer.errors import TrainerError
from finetune_trainer.models import base_model, base_place, model_cache
from finetune_trainer.storage import archive

NAME = "org/some-model"


def flags(target, **source):
    given = {"from_folder": None, "from_archive": None, "from_gguf": None, "from_hub": False, "revision": None}
    return argparse.Namespace(model=NAME, model_cache=target, **(given | source))


@pytest.fixture
def model(tiny_model, tmp_path):
    folder = tmp_path / "carried"
    shutil.copytree(tiny_model / "test" / "tiny-llama", folder)
    (folder / "manifest.json").unlink()
    return folder


def packed(model, kind, target, prefix=""):
    """The model as an archive, its files below `prefix`."""
    path = target / f"model.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            for one in model.iterdir():
                file.write(one, prefix + one.name)
        return path
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w:gz" if kind == "tar.gz" else "w") as file:
        for one in model.iterdir():
            file.add(one, prefix + one.name)
    data = plain.getvalue()
    path.write_bytes(zstandard.compress(data) if kind == "tar.zst" else data)
    return path


def test_a_folder_becomes_a_cached_model_that_jobs_find(model, tmp_path):
    target = tmp_path / "cache"
    assert cache.main(flags(target, from_folder=model)) == ExitCode.OK
    folder = model_cache.find_model(target, NAME)
    assert folder == target / NAME
    manifest = json.loads((folder / "manifest.json").read_text())
    assert (manifest["model"], manifest["source"]) == (NAME, "folder")
    assert set(manifest["files"]) == {path.name for path in model.iterdir()}
    assert model_cache.models_in(target) == [NAME]


@pytest.mark.parametrize("prefix", ["", "models/some-model/"])
@pytest.mark.parametrize("kind", ["tar", "tar.gz", "tar.zst", "zip"])
def test_every_kind_of_archive_is_taken(model, tmp_path, kind, prefix):
    target = tmp_path / "cache"
    assert cache.main(flags(target, from_archive=packed(model, kind, tmp_path, prefix))) == ExitCode.OK
    assert model_cache.find_model(target, NAME)
    assert [path.name for path in (target / "org").iterdir()] == ["some-model"]


def test_a_model_that_is_there_and_whole_is_left_alone(model, tmp_path):
    target = tmp_path / "cache"
    cache.main(flags(target, from_folder=model))
    before = (target / NAME / "manifest.json").stat().st_mtime_ns
    shutil.rmtree(model)
    assert cache.main(flags(target, from_folder=model)) == ExitCode.OK
    assert (target / NAME / "manifest.json").stat().st_mtime_ns == before


def test_a_damaged_model_is_put_there_anew(model, tmp_path):
    target = tmp_path / "cache"
    cache.main(flags(target, from_folder=model))
    (target / NAME / "tokenizer.json").unlink()
    assert cache.main(flags(target, from_folder=model)) == ExitCode.OK
    assert (target / NAME / "tokenizer.json").is_file()


def truncated(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def a_flipped_bit(folder):
    path = folder / "model.safetensors"
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)


@pytest.mark.parametrize(("spoil", "words"), [(truncated, "its manifest says"), (a_flipped_bit, "its checksum")])
def test_a_model_that_was_damaged_in_the_cache_is_refused_by_its_name_and_no_job_learns_from_it(
    model, tmp_path, spoil, words
):
    found = cache.cache(flags(tmp_path / "cache", from_folder=model))
    assert base_place.cached(tmp_path / "cache", NAME) == found
    spoil(found)
    with pytest.raises(TrainerError, match=r"model\.safetensors") as caught:
        base_place.cached(tmp_path / "cache", NAME)
    assert caught.value.reason == "ModelUnusable"
    assert words in caught.value.message
    assert f"finetune-trainer cache {NAME}" in caught.value.next_step


def test_weights_that_are_not_whole_are_told_as_damaged_where_no_manifest_knows_them(model):
    truncated(model)
    with pytest.raises(TrainerError, match=r"its weights are damaged: model\.safetensors has \d+ bytes") as caught:
        base_model.load_model(model, dtype="float32")
    assert caught.value.reason == "ModelUnusable"
    assert "finetune-trainer cache" in caught.value.next_step


def only_pickle(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def no_tokenizer(folder):
    (folder / "tokenizer.json").unlink()


def tokenizer_without_sense(folder):
    (folder / "tokenizer_config.json").write_text("[]")


def damaged_weights(folder):
    (folder / "model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0nonsense")


def no_causal_model(folder):
    config = json.loads((folder / "config.json").read_text()) | {
        "architectures": ["T5EncoderModel"],
        "model_type": "t5",
    }
    (folder / "config.json").write_text(json.dumps(config))


def unknown_architecture(folder):
    (folder / "config.json").write_text('{"model_type": "never-heard-of", "architectures": ["NeverHeardOf"]}')


def no_config(folder):
    (folder / "config.json").unlink()


def one_shard_of_two(folder):
    """A copy that broke off after its first file of weights."""
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    shards = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))


def broken_index(folder):
    one_shard_of_two(folder)
    (folder / "model.safetensors.index.json").write_text('{"weight_map": ')


def no_index(folder):
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (one_shard_of_two, "the model is incomplete: model-00002-of-00002.safetensors is missing"),
        (broken_index, "what model.safetensors.index.json should list is missing"),
        (no_index, "the model is incomplete: model.safetensors, or its index, is missing"),
        (only_pickle, "no weights in safetensors"),
        (no_tokenizer, "no tokenizer.json"),
        (tokenizer_without_sense, "tokenizer_config.json of the base model is not a JSON object. Correct it there"),
        (damaged_weights, "model.safetensors is damaged"),
        (no_causal_model, "org/some-model cannot be used: T5EncoderModel is not a language model that answers"),
        (unknown_architecture, "transformers has no language model of the kind never-heard-of"),
        (no_config, "no folder with a config.json"),
    ],
)
def test_a_model_that_no_job_could_use_does_not_get_in(model, tmp_path, spoil, words, capsys):
    spoil(model)
    target = tmp_path / "cache"
    assert cache.main(flags(target, from_folder=model)) == ExitCode.MODEL_UNUSABLE
    assert words in capsys.readouterr().err
    assert list((target / "org").iterdir()) == []


def test_pickled_weights_beside_safetensors_stay_outside(model, tmp_path):
    (model / "pytorch_model.bin").write_bytes(b"pickle")
    target = tmp_path / "cache"
    cache.main(flags(target, from_folder=model))
    assert not (target / NAME / "pytorch_model.bin").exists()


@pytest.mark.parametrize(
    "name", ["../escape", "/etc/passwd", "a/../b", "a//b", "", "a b", "a/b/c/d", ".hidden", "ä", "a" * 256]
)
def test_names_that_could_lead_elsewhere_are_refused(tmp_path, name, model):
    args = flags(tmp_path / "cache", from_folder=model)
    args.model = name
    assert cache.main(args) == ExitCode.SPEC_INVALID
    assert not (tmp_path / "cache").exists()


def test_a_source_that_is_not_there_is_named(tmp_path, capsys):
    assert cache.main(flags(tmp_path, from_folder=tmp_path / "absent")) == ExitCode.MODEL_NOT_FOUND
    assert "absent does not exist" in capsys.readouterr().err


def tar_with(path, *members):
    with tarfile.open(path, "w") as file:
        for member, data in members:
            file.addfile(member, io.BytesIO(data))
    return path


def member(name, kind=tarfile.REGTYPE, link="", size=2):
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, size if kind == tarfile.REGTYPE else 0
    return info


@pytest.mark.parametrize(
    "bad",
    [
        member("../outside"),
        member("/tmp/outside"),
        member("a/../../outside"),
        member("link", tarfile.SYMTYPE, "/etc/passwd"),
        member("hard", tarfile.LNKTYPE, "../../etc/passwd"),
        member("device", tarfile.CHRTYPE),
        member("pipe", tarfile.FIFOTYPE),
    ],
    ids=lambda info: info.name,
)
def test_an_archive_that_reaches_out_is_refused(tmp_path, bad):
    target = tmp_path / "in" / "deep"
    target.mkdir(parents=True)
    path = tar_with(tmp_path / "bad.tar", (member("good"), b"ok"), (bad, b"no"))
    with pytest.raises(TrainerError) as caught:
        archive.unpack(path, target)
    assert caught.value.reason == "ModelUnusable"
    assert {one.name for one in (tmp_path / "in").rglob("*")} == {"deep", "good"}


def test_a_zip_with_a_link_or_a_path_out_is_refused(tmp_path):
    for number, (name, mode) in enumerate([("../outside", 0o100644), ("link", 0o120777)]):
        info = zipfile.ZipInfo(name)
        info.external_attr = mode << 16
        path = tmp_path / f"{number}.zip"
        with zipfile.ZipFile(path, "w") as file:
            file.writestr(info, "/etc/passwd")
        with pytest.raises(TrainerError):
            archive.unpack(path, tmp_path / "target")


@pytest.mark.parametrize(
    ("names", "words"),
    [(("a", "a"), "occurs twice"), (("a", "a/b"), "occurs twice"), (("x" * 300,), "is too long")],
)
def test_an_archive_with_names_that_no_folder_takes_is_to_blame_itself(tmp_path, names, words):
    path = tar_with(tmp_path / "bad.tar", *((member(name), b"ok") for name in names))
    with pytest.raises(TrainerError, match=rf"bad\.tar: a path in it {words}") as caught:
        archive.unpack(path, tmp_path / "target")
    assert caught.value.reason == "ModelUnusable"


def test_an_archive_with_no_or_two_models_is_refused_by_its_own_name(model, tmp_path, capsys):
    for prefixes, words in ((("a/", "b/"), "more than one"), (("a/b/c/d/",), "no folder")):
        path = tmp_path / "models.tar"
        with tarfile.open(path, "w") as file:
            for prefix in prefixes:
                file.add(model / "config.json", f"{prefix}config.json")
        assert cache.main(flags(tmp_path / "cache", from_archive=path)) == ExitCode.MODEL_UNUSABLE
        assert f"ModelUnusable: models.tar has {words}" in capsys.readouterr().err


def test_an_archive_that_unpacks_to_too_much_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "MOST_BYTES", 1000)
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("zeros", bytes(5000))
    with pytest.raises(TrainerError, match="more than any model has"):
        archive.unpack(path, tmp_path / "target")
    monkeypatch.setattr(archive, "MOST_FILES", 2)
    many = tar_with(tmp_path / "many.tar", *((member(f"f{number}"), b"ok") for number in range(3)))
    with pytest.raises(TrainerError, match="more than 2 files"):
        archive.unpack(many, tmp_path / "target2")


@pytest.mark.parametrize("data", [b"", b"no archive at all", b"\x28\xb5\x2f\xfd broken zstd", b"\x1f\x8b broken gzip"])
def test_a_broken_archive_is_an_error_for_people(tmp_path, data):
    path = tmp_path / "broken.tar"
    path.write_bytes(data)
    with pytest.raises(TrainerError, match=r"broken\.tar") as caught:
        archive.unpack(path, tmp_path / "target")
    assert caught.value.reason == "ModelUnusable"


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ("org/some-modell", "it has org/some-model"),
        ("other/some-model", "it has org/some-model"),
        ("ORG/Some-Model", "it has org/some-model"),
        ("something/else-entirely", "it has 1 model, none with a name like that"),
    ],
)
def test_a_name_that_is_not_there_is_answered_with_those_like_it(tmp_path, asked, words):
    folder = tmp_path / NAME
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    assert model_cache.find_model(tmp_path, asked) is None
    error = model_cache.not_in_cache(tmp_path, asked)
    assert f"{asked} is not in the model cache; {words}" in error.message
    assert error.exit_code == ExitCode.MODEL_NOT_FOUND


@pytest.mark.parametrize("closed", ["some-model", "some-model/model.safetensors"])
def test_a_model_that_this_user_may_not_read_is_said_to_be_closed_and_not_missing(tmp_path, monkeypatch, closed):
    """Libraries say that such weights are not there; tests may run as root, who may read all."""
    model, shut = tmp_path / NAME, tmp_path / "org" / closed
    model.mkdir(parents=True)
    for file in ("config.json", "model.safetensors"):
        (model / file).write_text("{}")
    may, listed = os.access, Path.iterdir
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != shut and may(path, mode))

    def listing(folder):
        if folder == shut:
            raise PermissionError(errno.EACCES, "Permission denied", str(folder))
        return listed(folder)

    monkeypatch.setattr(Path, "iterdir", listing)
    with pytest.raises(TrainerError) as refused:
        model_cache.find_model(tmp_path, NAME)
    assert refused.value.reason is Reason.ACCESS_DENIED
    assert refused.value.message == f"{NAME}: {shut} in the model cache does not let it be read (Permission denied)"
    assert "chmod" in refused.value.next_step
    (model.parent / "open").mkdir()
    (model.parent / "open" / "config.json").write_text("{}")
    others = model_cache.not_in_cache(tmp_path, "org/opened").message
    assert "org/open" in others, "a name that is not there is answered all the same"


def test_looking_a_model_up_needs_no_torch():
    code = "import sys; import finetune_trainer.models.model_cache; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_of_two_that_bring_one_model_at_once_the_second_waits_for_the_first(model, tmp_path, monkeypatch):
    """As two Jobs do that were applied together: none may take what the other is writing for rubbish."""
    brought, waits = [], threading.Event()
    copy = cache._copy

    def bring():
        brought.append(cache.cache(flags(tmp_path / "cache", from_folder=model)))

    second = threading.Thread(target=bring)
    monkeypatch.setattr(cache.outcome, "say", lambda line: waits.set() if "waiting for it" in line else None)

    def copy_slowly(source, target):
        copy(source, target)
        if threading.current_thread() is not second:
            second.start()
            assert waits.wait(60)

    monkeypatch.setattr(cache, "_copy", copy_slowly)
    bring()
    second.join()
    assert brought == [tmp_path / "cache" / NAME] * 2
    assert set(json.loads((brought[0] / "manifest.json").read_text())["files"]) == {p.name for p in model.iterdir()}
    assert model_cache.models_in(tmp_path / "cache") == [NAME]


def test_a_volume_without_locks_takes_a_model_all_the_same(model, tmp_path, monkeypatch):
    def none(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(cache.fcntl, "flock", none)
    assert cache.main(flags(tmp_path / "cache", from_folder=model)) == ExitCode.OK


def test_another_model_of_the_same_owner_on_its_way_in_is_left_alone(model, tmp_path):
    target = tmp_path / "cache"
    own, other = (target / "org" / f".unfinished-{name}-0a1b2c3d" for name in ("some-model", "some-model-2"))
    own.mkdir(parents=True)
    other.mkdir()
    assert cache.main(flags(target, from_folder=model)) == ExitCode.OK
    assert (own.exists(), other.exists()) == (False, True)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({"from_archive": "folder"}, "folder is not a file. Give a folder with --from-folder."),
        ({"from_gguf": "folder"}, "folder is not a file. Give a folder with --from-folder."),
        ({"from_archive": "pipe"}, "pipe is not a file. Give a file: a pipe can be read only once."),
        ({"from_folder": "file"}, "file is not a folder. Give a file with --from-archive."),
    ],
)
def test_a_source_of_the_wrong_kind_is_refused_in_one_line(tmp_path, source, words, capsys):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    given = {name: tmp_path / value for name, value in source.items()}
    assert cache.main(flags(tmp_path / "cache", **given)) == ExitCode.MODEL_UNUSABLE
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("source", ["from_folder", "from_archive"])
def test_a_cache_that_cannot_be_written_is_named(model, tmp_path, source, capsys):
    given = {"from_folder": model, "from_archive": packed(model, "tar", tmp_path)}[source]
    (tmp_path / "cache").touch()
    assert cache.main(flags(tmp_path / "cache", **{source: given})) == ExitCode.ARTIFACT_FAILED
    said = capsys.readouterr().err
    assert "could not be written: Not a directory" in said
    assert "--model-cache" in said


@pytest.mark.parametrize("kind", ["gz", "bz2", "xz", "zst"])
@pytest.mark.parametrize("spoil", ["cut", "change"])
def test_an_archive_that_was_damaged_on_its_way_is_an_error_for_people(tmp_path, kind, spoil):
    import random

    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w" if kind == "zst" else f"w:{kind}") as file:
        info = tarfile.TarInfo("model.safetensors")
        info.size = 400_000
        file.addfile(info, io.BytesIO(random.Random(0).randbytes(info.size)))
    data = bytearray(
        zstandard.ZstdCompressor(write_checksum=True).compress(plain.getvalue()) if kind == "zst" else plain.getvalue()
    )
    middle = len(data) // 2
    if spoil == "cut":
        del data[middle:]
    else:
        data[middle : middle + 64] = bytes(64)
    path = tmp_path / "model.tar"
    path.write_bytes(data)
    (tmp_path / "into").mkdir()
    with pytest.raises(TrainerError) as caught:
        archive.unpack(path, tmp_path / "into")
    assert caught.value.reason == "ModelUnusable"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OSError(28, "No space left on device"), ExitCode.ARTIFACT_FAILED),
        (ConnectionError(), ExitCode.SERVICE_UNAVAILABLE),
    ],
)
@pytest.mark.usefixtures("clock")
def test_a_full_disk_is_not_taken_for_a_hub_that_is_away(tmp_path, monkeypatch, error, code, capsys):
    def fails(*_args, **_kwargs):
        raise error

    monkeypatch.setattr("huggingface_hub.snapshot_download", fails)
    assert cache.main(flags(tmp_path / "cache", from_hub=True)) == code
    assert "--" in capsys.readouterr().err
    assert list((tmp_path / "cache" / "org").iterdir()) == []


@pytest.mark.usefixtures("clock")
def test_a_hub_that_breaks_off_in_the_middle_of_a_file_is_an_error_for_people(tmp_path, monkeypatch):
    import httpx

    def breaks_off(*_args, **_kwargs):
        raise httpx.ReadError("connection reset")

    monkeypatch.setattr("huggingface_hub.snapshot_download", breaks_off)
    assert cache.main(flags(tmp_path / "cache", from_hub=True)) == ExitCode.SERVICE_UNAVAILABLE


@pytest.mark.parametrize("name", ["org/model@main", "org/model:latest", "org/model@0123abc"])
def test_who_writes_a_revision_behind_a_models_name_is_told_where_it_is_chosen(tmp_path, name):
    with pytest.raises(TrainerError, match="is not a name of a model") as error:
        model_cache.find_model(tmp_path, name)
    assert "finetune-trainer cache NAME --revision COMMIT" in str(error.value.next_step)
    with pytest.raises(TrainerError, match="is not a name of a model") as error:
        model_cache.find_model(tmp_path, "../org")
    assert "--revision" not in str(error.value.next_step)
