"""Where check looks for data, and what it says of a place that has none."""

import os
import shutil

import pytest

from finetune_api.exit_codes import ExitCode
from tests.assets.tiny_model import NAME as TINY
from tests.unit.finetune_trainer.checked import GOOD


def test_a_file_that_is_not_there(check, tmp_path):
    result = check(spec={"dataset": {"train": {"uri": f"file://{tmp_path}/none.jsonl"}}})
    assert (result.code, result.verdict.reason) == (ExitCode.DATASET_NOT_FOUND, "DatasetNotFound")
    assert f"none.jsonl is not in {tmp_path}" in result.verdict.message


@pytest.mark.parametrize(("written", "found"), [("Rows.jsonl", True), ("rows.json", True), ("other.csv", False)])
def test_a_file_that_is_not_there_is_answered_with_the_one_that_is(check, tmp_path, written, found):
    (tmp_path / "rows.jsonl").write_text(GOOD)
    result = check(spec={"dataset": {"train": {"uri": f"file://{tmp_path}/{written}"}}})
    assert result.code == ExitCode.DATASET_NOT_FOUND
    assert ("; there is rows.jsonl" in result.verdict.message) == found
    assert "file:///FOLDER/FILE" in result.verdict.next_step


@pytest.mark.parametrize("around", ["\u201c{}\u201d", "'{}'", " {}"])
def test_what_was_copied_around_a_uri_is_told(check, tmp_path, around):
    result = check(spec={"dataset": {"train": {"uri": around.format((tmp_path / "t.jsonl").as_uri())}}})
    assert result.code == ExitCode.SPEC_INVALID
    assert (
        "train.uri: the uri begins or ends with a space or a quotation mark; write it without" in result.verdict.message
    )


@pytest.mark.parametrize(
    ("uri", "place"), [("pvc://data/a/rows.jsonl", "pvc://data"), ("configmap://c/k", "configmap://c")]
)
def test_a_manifest_of_the_cluster_is_told_how_to_name_its_file_on_this_machine(check, uri, place):
    result = check(spec={"dataset": {"train": {"uri": uri}}})
    assert result.code == ExitCode.DATASET_NOT_FOUND
    assert f"{place} is of the job's namespace on a cluster, and not mounted here" in result.verdict.message
    assert "file:///FOLDER/FILE" in result.verdict.next_step


def test_a_store_whose_library_is_not_installed_names_what_to_install(check, monkeypatch):
    def absent(*_, **__):
        raise ImportError("Install s3fs to access S3")  # as fsspec raises it: without the module's name

    monkeypatch.setattr("fsspec.core.url_to_fs", absent)
    result = check(spec={"dataset": {"train": {"uri": "s3://bucket/rows.jsonl"}}})
    assert result.code == ExitCode.SPEC_INVALID
    assert result.verdict.message == "rows.jsonl: s3:// cannot be read here: what reads it is not installed"
    assert "./trainer_image[stores]" in result.verdict.next_step


@pytest.mark.parametrize(("status", "reason"), [(500, "StoreUnavailable"), (403, "AccessDenied")])
def test_the_next_step_at_a_shell_speaks_of_the_shell(check, monkeypatch, status, reason):
    def refuses(*_, **__):
        error = OSError("no")
        error.status = status
        raise error

    monkeypatch.setattr("fsspec.core.url_to_fs", refuses)
    result = check(spec={"dataset": {"train": {"uri": "https://example.com/rows.jsonl"}}})
    assert result.verdict.reason == reason
    assert not [word for word in ("retryNonce", "Secret") if word in result.verdict.next_step]


def test_the_uri_of_a_local_file_is_percent_decoded(check, tmp_path):
    path = tmp_path / "a b#ü?.jsonl"
    path.write_text(GOOD)
    assert check(spec={"dataset": {"train": {"uri": path.as_uri()}}}).code == ExitCode.OK


def test_a_pipe_is_not_waited_for(check, tmp_path):
    os.mkfifo(tmp_path / "rows.jsonl")
    result = check(spec={"dataset": {"train": {"uri": f"file://{tmp_path}/rows.jsonl"}}})
    assert result.code == ExitCode.DATASET_NOT_FOUND
    assert "rows.jsonl is a pipe or a device, not a file" in result.verdict.message


@pytest.mark.parametrize("name", ["loop.jsonl", "n" * 300 + ".jsonl", "gone.jsonl"])
def test_names_that_lead_nowhere_are_not_tried_again(check, tmp_path, name):
    (tmp_path / "loop.jsonl").symlink_to(tmp_path / "loop.jsonl")
    (tmp_path / "gone.jsonl").symlink_to(tmp_path / "nowhere")
    result = check(spec={"dataset": {"train": {"uri": f"file://{tmp_path}/{name}"}}})
    assert result.code == ExitCode.DATASET_NOT_FOUND
    assert f"there is {name}" not in result.verdict.message


def test_a_folder_is_no_file(check, tmp_path):
    for name in ("rows.jsonl", "rows"):
        (tmp_path / name).mkdir()
        result = check(spec={"dataset": {"train": {"uri": f"file://{tmp_path}/{name}"}}})
        assert result.code == ExitCode.DATASET_NOT_FOUND
        assert "is a folder, not a file" in result.verdict.message
        assert "Several become one by `cat`" in result.verdict.next_step


def test_a_pattern_is_no_file(check, tmp_path):
    (tmp_path / "part-1.jsonl").write_text(GOOD)
    result = check(spec={"dataset": {"train": {"uri": f"file://{tmp_path}/part-*.jsonl"}}})
    assert result.code == ExitCode.DATASET_NOT_FOUND
    assert result.verdict.next_step.startswith("Patterns are not read as such. Name one file of rows in the uri.")


def test_hubs_are_not_asked_offline(check, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    result = check(spec={"dataset": {"train": {"uri": "hf://datasets/owner/name/train.jsonl"}}})
    assert result.code == ExitCode.SPEC_INVALID
    assert "air-gapped" in result.verdict.message


def test_a_folder_of_the_path_that_is_not_there_is_named(check, tmp_path):
    (tmp_path / "data").mkdir()
    uri = (tmp_path / "data" / "data" / "tickets" / "rows.jsonl").as_uri()
    result = check(spec={"dataset": {"train": {"uri": uri}}})
    assert result.code == ExitCode.DATASET_NOT_FOUND
    assert result.verdict.message.endswith(f"; there is no folder {str(tmp_path / 'data' / 'data').lstrip('/')}")


@pytest.mark.parametrize(("path", "found"), [("data/rows.jsonl", True), ("mnt/data/rows.jsonl", True), ("a/b", False)])
def test_a_path_that_repeats_where_its_claim_is_mounted_is_answered_with_the_file(
    check, tmp_path, monkeypatch, path, found
):
    monkeypatch.setattr("finetune_api.uris.CLAIMS_PATH", str(tmp_path))
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "rows.jsonl").write_text(GOOD)
    message = check(spec={"dataset": {"train": {"uri": f"pvc://data/{path}"}}}).verdict.message
    assert f"; there is no folder {path.split('/')[0]}" in message
    assert message.endswith("; there is rows.jsonl") == found


def test_a_key_that_a_config_map_lacks_is_answered_with_those_that_it_has(check, tmp_path, monkeypatch):
    monkeypatch.setattr("finetune_api.uris.CONFIG_MAPS_PATH", str(tmp_path))
    folder = tmp_path / "rows" / "..2026_11_27"
    folder.mkdir(parents=True)
    (tmp_path / "rows" / "..data").symlink_to(folder)
    for key in ("colours.csv", "sizes.csv"):
        (tmp_path / "rows" / key).write_text("prompt,completion\na,b\n")
    message = check(spec={"dataset": {"train": {"uri": "configmap://rows/train.jsonl"}}}).verdict.message
    assert message.endswith("; there are colours.csv, sizes.csv")


def spoilt(cache, folder, spoil):
    """A copy of the tiny model with something wrong."""
    copy = folder / "cache" / TINY
    shutil.copytree(cache / TINY, copy)
    spoil(copy / "model.safetensors")
    return copy.parents[1]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda file: file.write_text("version https://git-lfs.github.com/"), "is a pointer of Git LFS, not the file"),
        (lambda file: file.write_bytes(file.read_bytes()[:-9]), "its header speaks of"),
    ],
)
def test_a_base_model_whose_files_are_not_whole_is_refused_before_a_gpu_is_asked_for(
    check, tiny_model, tmp_path, spoil, said
):
    found = check("--model-cache", spoilt(tiny_model, tmp_path, spoil), train=("train.jsonl", GOOD))
    assert (found.code, found.verdict.reason) == (ExitCode.MODEL_UNUSABLE, "ModelUnusable")
    assert said in found.verdict.message
    assert "finetune-trainer cache" in found.verdict.next_step


def test_a_cache_with_a_models_tokenizer_alone_is_enough_to_check_data(check, tiny_model, tmp_path):
    """Weights are gigabytes that a laptop need not have, though their index may have come along."""
    cache = spoilt(tiny_model, tmp_path, lambda file: file.unlink())
    (cache / TINY / "model.safetensors.index.json").write_text('{"metadata": {}, "weight_map": {"a": "b.safetensors"}}')
    found = check("--model-cache", cache, train=("train.jsonl", GOOD))
    assert (found.code, found.verdict.train.tokens > 0) == (ExitCode.OK, True)


def test_a_link_to_nowhere_is_no_file_that_may_not_be_read(check, tiny_model, tmp_path):
    """A snapshot of Hugging Face's cache that was copied without its blobs."""

    def without_blobs(file):
        file.unlink()
        file.symlink_to("../../blobs/abc")

    found = check("--model-cache", spoilt(tiny_model, tmp_path, without_blobs), train=("train.jsonl", GOOD))
    assert (found.code, found.verdict.reason) == (ExitCode.MODEL_UNUSABLE, "ModelUnusable")
    said = "model.safetensors in the model cache is a link to ../../blobs/abc, which is not there"
    assert said in found.verdict.message
    assert "cp -rL" in found.verdict.next_step


UNREADABLE = {
    "pvc://data/rows.xlsx": "Save the sheet as CSV; Excel calls it CSV UTF-8.",
    "s3://bucket/rows.csv.zip": "Take the file of rows out of the archive; gzip, zstd, bzip2 or xz may compress it.",
    "https://example.com/a/rows.docx?raw=1.csv": "Save the rows as CSV, JSON Lines or Parquet.",
    "gs://bucket/rows.PDF": "Save the rows as CSV, JSON Lines or Parquet.",
    "pvc://data/rows.txt": "Set spec.dataset.train.format to CSV, JSONLines, JSON or Parquet.",
    "abfs://data/rows.txt.gz": "Set spec.dataset.train.format to CSV, JSONLines, JSON or Parquet.",
    "hf://datasets/owner/name/data": "Name one file of rows in the uri, not the folder that it is in.",
    "pvc://data/tickets/": "Name one file of rows in the uri, not the folder that it is in.",
    "pvc://data/rows.jsonl/": "Name one file of rows in the uri, not the folder that it is in.",
}


@pytest.mark.parametrize("uri", UNREADABLE)
def test_a_name_that_cannot_be_read_is_refused_without_reading(check, uri):
    found = check("--manifest-only", spec={"dataset": {"train": {"uri": uri}}})
    assert (found.code, found.verdict.reason) == (ExitCode.SPEC_INVALID, "SpecInvalid")
    assert found.verdict.message.startswith("spec.dataset.train")
    assert found.verdict.next_step.startswith(UNREADABLE[uri])


@pytest.mark.parametrize("name", ["rows.xlsx", "rows.zip", "rows.txt", "rows", "rows.csv.lz4", "rows.csv.gz", "r.tsv"])
def test_a_name_is_judged_without_reading_as_it_is_with_it(check, tmp_path, name):
    (tmp_path / name).write_text("prompt,completion\nWhat colour is the sky?,blue\n")
    dataset = {"train": {"uri": (tmp_path / name).as_uri()}}
    read, unread = check(spec={"dataset": dataset}), check("--manifest-only", spec={"dataset": dataset})
    assert (unread.code, unread.verdict.reason) == (read.code, read.verdict.reason)
    assert read.verdict.valid or unread.verdict.message == read.verdict.message
    assert (read.verdict.next_step or "") in (unread.verdict.next_step or "")


def test_a_file_with_a_format_may_have_any_name(check):
    named = {"train": {"uri": "pvc://data/rows.txt", "format": "JSONLines"}}
    assert check("--manifest-only", spec={"dataset": named}).code == ExitCode.OK


@pytest.mark.parametrize("name", ["part-*.jsonl", "{a,b}.jsonl", "part-[0-9].jsonl", "*/rows.jsonl"])
def test_a_name_that_looks_like_a_pattern_is_doubted_without_reading(check, name):
    found = check("--manifest-only", spec={"dataset": {"validation": {"uri": f"s3://bucket/{name}"}}}, train=GOOD_FILE)
    assert found.code == ExitCode.OK
    assert "patterns are not read as such" in " ".join(found.verdict.warnings)
    assert [said for said in found.verdict.warnings if said.startswith("spec.dataset.validation.uri: ")]


@pytest.mark.parametrize("name", ["rows [1].jsonl", "rows (2).jsonl", "{run}.jsonl", "a-[final].csv"])
def test_a_name_with_brackets_of_its_own_is_no_pattern(check, name):
    found = check("--manifest-only", spec={"dataset": {"train": {"uri": f"pvc://data/{name}"}}})
    assert (found.code, found.verdict.warnings) == (ExitCode.OK, [])


GOOD_FILE = ("train.jsonl", GOOD)
