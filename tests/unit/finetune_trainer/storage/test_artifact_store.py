"""Artifacts in an object store: whole or not at all, whatever breaks on the way."""

import argparse
import hashlib
import json
import os
import shutil
from collections import Counter
from pathlib import Path

import pytest
from s3fs import S3FileSystem

from finetune_api.exit_codes import ExitCode
from finetune_api.names import ARTIFACTS_PREFIX, DATA_PREFIX
from finetune_api.reasons import Reason
from finetune_api.trainer import StoreRef
from finetune_api.uris import parse_artifact_uri
from finetune_trainer import fetch, prune
from finetune_trainer.errors import TrainerError
from finetune_trainer.job.given import take_data_keys
from finetune_trainer.storage import artifact_store, store_clients
from finetune_trainer.storage.durable import read_manifest, whole_folder
from finetune_trainer.storage.store import Store
from finetune_trainer.storage.store_clients import PROXIES, connect
from tests.unit.finetune_trainer.storage.azure_store import SIGNATURE


@pytest.fixture
def tuned(tmp_path):
    folder = tmp_path / "model"
    with whole_folder(folder, baseModel="tiny/llama") as staging:
        (staging / "adapter_model.safetensors").write_bytes(os.urandom(200_000))
        (staging / "adapter_config.json").write_text("{}")
        (staging / "deep").mkdir()
        (staging / "deep" / "file").write_bytes(b"")
    return folder


def same(first: Path, second: Path) -> bool:
    return (first / "manifest.json").read_bytes() == (second / "manifest.json").read_bytes() and bool(
        read_manifest(second)
    )


def refused(action) -> TrainerError:
    with pytest.raises(TrainerError) as caught:
        action()
    return caught.value


@pytest.mark.alike
def test_an_artifact_comes_back_as_it_was_and_its_manifest_went_last(any_bucket, tuned, tmp_path):
    kept = Store(any_bucket.ref("round"))
    assert artifact_store.newest(kept) is None
    artifact_store.keep(tuned, kept, "model-1")
    uploads = [path for method, path in any_bucket.asked if method == "PUT"]
    assert uploads[-1] == "/models/round/model-1/manifest.json"
    assert artifact_store.newest(kept) == "model-1"
    artifact_store.fetch(kept, "model-1", tmp_path / "back")
    assert same(tuned, tmp_path / "back")
    assert {path.name for path in tmp_path.iterdir()} == {"model", "back"}


@pytest.mark.alike
def test_a_large_file_goes_up_in_parts_and_a_broken_part_leaves_no_rubbish(any_bucket, tmp_path, monkeypatch):
    monkeypatch.setattr(store_clients, "_PART", 6 << 20)  # S3 takes none below 5 MiB but the last
    S3FileSystem.clear_instance_cache()
    large = tmp_path / "large"
    large.write_bytes(os.urandom(13 << 20))
    broken = Counter()

    def breaks_one_part(method, path):
        broken[path.partition("?")[2][:12]] += method == "PUT" and "partNumber=2" in path
        return "break" if broken["partNumber=2"] == 1 and "partNumber=2" in path else None

    any_bucket.fault = breaks_one_part
    kept = Store(any_bucket.ref("parts"))
    kept.put(large, "large")
    assert broken["partNumber=2"] > 1
    assert hashlib.sha256(any_bucket.read("parts/large")).digest() == hashlib.sha256(large.read_bytes()).digest()
    assert any_bucket.unfinished_uploads() == 0


@pytest.mark.alike
@pytest.mark.parametrize("fault", ["break", "busy"])
def test_an_upload_that_breaks_in_the_middle_is_made_again(any_bucket, tuned, tmp_path, fault):
    left = Counter({"weights": 2})

    def breaks_twice(method, path):
        if method == "PUT" and "safetensors" in path and left["weights"] > 0:
            left["weights"] -= 1
            return fault
        return None

    any_bucket.fault = breaks_twice
    kept = Store(any_bucket.ref(f"again-{fault}"))
    artifact_store.keep(tuned, kept, "model-1")
    artifact_store.fetch(kept, "model-1", tmp_path / "back")
    assert same(tuned, tmp_path / "back")


@pytest.mark.alike
def test_an_upload_that_never_gets_through_leaves_nothing_that_counts_and_can_be_repeated(any_bucket, tuned, tmp_path):
    kept = Store(any_bucket.ref("crash"), patience=0)
    any_bucket.fault = lambda method, path: "break" if method == "PUT" and "safetensors" in path else None
    error = refused(lambda: artifact_store.keep(tuned, kept, "model-1"))
    assert error.reason == Reason.STORE_UNAVAILABLE
    assert "adapter_model.safetensors" in error.message
    assert "resumes from its newest checkpoint" in error.next_step
    any_bucket.fault = lambda _method, _path: None
    assert "model-1/adapter_config.json" in any_bucket.names("crash")
    assert artifact_store.newest(kept) is None
    assert "no manifest.json" in refused(lambda: artifact_store.fetch(kept, "model-1", tmp_path / "back")).message
    artifact_store.keep(tuned, kept, "model-1")
    artifact_store.fetch(kept, "model-1", tmp_path / "back")
    assert same(tuned, tmp_path / "back")


@pytest.mark.alike
def test_an_attempt_that_was_given_up_and_writes_late_spoils_nothing(any_bucket, tuned, tmp_path):
    kept = Store(any_bucket.ref("late-write"))
    artifact_store.keep(tuned, kept, "model-2")
    with whole_folder(tmp_path / "other") as staging:
        (staging / "adapter_model.safetensors").write_bytes(b"other weights")
    artifact_store.keep(tmp_path / "other", kept, "model-1")
    assert artifact_store.newest(kept) == "model-2"
    artifact_store.fetch(kept, "model-2", tmp_path / "back")
    assert same(tuned, tmp_path / "back")
    artifact_store.forget_before(kept, "model-2")
    left = any_bucket.names("late-write")
    assert {name.partition("/")[0] for name in left} == {"model-2"}


def spoil(bucket, name: str) -> None:
    content = bucket.read(name)
    bucket.write(name, bytes([content[0] ^ 1]) + content[1:])


SPOILT = {
    "a file has another byte": (lambda b: spoil(b, "spoilt/m/adapter_model.safetensors"), "differs from its checksum"),
    "a file is gone": (lambda b: b.delete("spoilt/m/adapter_config.json"), "adapter_config.json is missing"),
    "the manifest is gone": (lambda b: b.delete("spoilt/m/manifest.json"), "it has no manifest.json"),
    "the manifest is not JSON": (lambda b: b.write("spoilt/m/manifest.json", b"{"), "not the one"),
    "another artifact stands there": (
        lambda b: b.write("spoilt/m/manifest.json", b'{"files": {}}'),
        "is not the one that the training left",
    ),
}


@pytest.mark.alike
@pytest.mark.parametrize("how", SPOILT)
def test_a_spoilt_artifact_is_refused_and_nothing_stands_in_its_place(any_bucket, tuned, tmp_path, how):
    kept = Store(any_bucket.ref("spoilt"))
    artifact_store.keep(tuned, kept, "m")
    sha256 = hashlib.sha256((tuned / "manifest.json").read_bytes()).hexdigest()
    spoils, said = SPOILT[how]
    spoils(any_bucket)
    error = refused(lambda: artifact_store.fetch(kept, "m", tmp_path / "back", sha256=sha256))
    assert error.reason == Reason.MODEL_UNUSABLE
    assert said in error.message
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("name", ["../../evil", "/etc/evil", "a/../../evil", ""])
def test_a_manifest_cannot_write_outside_of_the_folder(bucket, tmp_path, name):
    manifest = {"files": {name: {"bytes": 1, "sha256": hashlib.sha256(b"x").hexdigest()}}}
    bucket.write("evil/manifest.json", json.dumps(manifest).encode())
    bucket.write("evil/evil", b"x")
    error = refused(lambda: artifact_store.fetch(Store(bucket.ref("evil")), "", tmp_path / "a" / "back"))
    assert (error.reason, "cannot be read" in error.message) == (Reason.MODEL_UNUSABLE, True)
    assert not list(tmp_path.rglob("*evil*"))


@pytest.mark.parametrize(
    ("fault", "reason", "said", "step"),
    [
        ("denied", Reason.ACCESS_DENIED, "{root} refuses its keys for x", "artifacts.secretRef"),
        ("busy", Reason.STORE_UNAVAILABLE, "does not answer as it should for x", "when the store answers"),
    ],
)
def test_what_the_store_refuses_is_said_with_what_to_do(any_bucket, fault, reason, said, step):
    any_bucket.fault = lambda _method, _path: fault
    kept = Store(any_bucket.ref("refused"), patience=0)
    for action in (lambda: kept.put_bytes(b"x", "x"), lambda: kept.get_bytes("x")):
        error = refused(action)
        assert error.reason == reason
        assert said.format(root=any_bucket.root) in error.message
        assert step in error.next_step


def test_a_bucket_that_is_not_there_is_said(any_bucket):
    root = any_bucket.root.replace("models", "absent", 1)
    absent = Store(StoreRef(uri=f"{root}/x", endpoint=any_bucket.endpoint), patience=0)
    error = refused(lambda: absent.put_bytes(b"", "x"))
    assert (error.reason, f"there is no {root}" in error.message) == (Reason.ARTIFACT_FAILED, True)
    assert "artifacts.uri" in error.next_step


def test_a_store_without_keys_of_its_own_takes_those_of_the_service_account(bucket, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(f"{ARTIFACTS_PREFIX}{name}")
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    error = refused(lambda: Store(bucket.ref("own"), patience=0).put_bytes(b"x", "x"))
    assert error.reason == Reason.ACCESS_DENIED
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    S3FileSystem.clear_instance_cache()  # as in a new pod
    Store(bucket.ref("own"), patience=0).put_bytes(b"x", "x")
    assert bucket.read("own/x") == b"x"


def test_a_store_is_reached_by_the_proxy_of_its_own_secret(bucket, monkeypatch):
    """A server's pod, and one that prunes, have no other; where there is one, of the data or a policy, it counts."""
    for name in PROXIES:
        monkeypatch.setenv(name, "")  # so that what the process takes is taken back
        monkeypatch.delenv(name)
    monkeypatch.setenv(f"{ARTIFACTS_PREFIX}HTTP_PROXY", "http://127.0.0.1:9\n")
    S3FileSystem.clear_instance_cache()
    assert refused(lambda: Store(bucket.ref("far"), patience=0).put_bytes(b"x", "x")).reason == Reason.STORE_UNAVAILABLE
    monkeypatch.delenv("HTTP_PROXY")
    S3FileSystem.clear_instance_cache()  # as in a new pod
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    Store(bucket.ref("near"), patience=0).put_bytes(b"x", "x")
    assert "HTTP_PROXY" not in os.environ


def test_keys_that_are_none_are_said_and_not_quoted(google, azure, monkeypatch):
    for text in ("{", "{}", "[]", '{"type": "service_account", "private_key": "hush"}'):
        monkeypatch.setenv(f"{ARTIFACTS_PREFIX}GOOGLE_APPLICATION_CREDENTIALS_JSON", text)
        error = refused(lambda: Store(google.ref("keys"), patience=0).put_bytes(b"x", "x"))
        assert error.reason == Reason.ACCESS_DENIED
        assert "GOOGLE_APPLICATION_CREDENTIALS_JSON is not the key of a service account" in error.message
        assert "hush" not in error.message + error.next_step
    monkeypatch.delenv(f"{ARTIFACTS_PREFIX}AZURE_STORAGE_ACCOUNT_KEY")
    monkeypatch.setenv(f"{ARTIFACTS_PREFIX}AZURE_STORAGE_CLIENT_ID", "id")
    error = refused(lambda: Store(azure.ref("keys"), patience=0).put_bytes(b"x", "x"))
    assert (error.reason, "AZURE_STORAGE_TENANT_ID" in error.message) == (Reason.ACCESS_DENIED, True)


def test_google_without_a_secret_is_reached_as_the_pods_service_account(google, monkeypatch, tmp_path):
    key = tmp_path / "key.json"
    key.write_text(google.keys["GOOGLE_APPLICATION_CREDENTIALS_JSON"])
    monkeypatch.delenv(f"{ARTIFACTS_PREFIX}GOOGLE_APPLICATION_CREDENTIALS_JSON")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(key))
    Store(google.ref("own"), patience=0).put_bytes(b"x", "x")
    assert google.read("own/x") == b"x"
    key.unlink()
    error = refused(lambda: Store(google.ref("own"), patience=0).put_bytes(b"x", "x"))
    assert (error.reason, "artifacts.secretRef" in error.next_step) == (Reason.ACCESS_DENIED, True)


def test_artifacts_at_google_do_not_go_where_the_data_are(google, monkeypatch):
    """STORAGE_EMULATOR_HOST of the data's Secret is of the data: artifacts have an endpointURL of their own."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "")
    monkeypatch.setenv(f"{DATA_PREFIX}STORAGE_EMULATOR_HOST", "http://127.0.0.1:9")
    take_data_keys(os.environ)
    place = parse_artifact_uri(google.root)
    assert connect(place, None).files.base == "https://storage.googleapis.com/storage/v1/"
    Store(google.ref("own"), patience=0).put_bytes(b"x", "x")
    assert google.read("own/x") == b"x"
    monkeypatch.delenv(f"{DATA_PREFIX}STORAGE_EMULATOR_HOST")
    assert connect(place, None).files.base == "http://127.0.0.1:9/storage/v1/", "of the pod itself"


def test_azure_takes_the_artifacts_keys_and_not_those_of_the_data(azure, monkeypatch):
    monkeypatch.delenv(f"{ARTIFACTS_PREFIX}AZURE_STORAGE_ACCOUNT_KEY")
    monkeypatch.setenv(f"{ARTIFACTS_PREFIX}AZURE_STORAGE_SAS_TOKEN", f"?sv=2026-01-01&sig={SIGNATURE}")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "b3RoZXI=")
    monkeypatch.setenv(
        "AZURE_STORAGE_CONNECTION_STRING", "DefaultEndpointsProtocol=https;AccountName=o;AccountKey=bw=="
    )
    Store(azure.ref("sas"), patience=0).put_bytes(b"x", "x")
    assert (azure.read("sas/x"), azure.signed_by) == (b"x", "sas")


@pytest.mark.parametrize("store_name", ["google", "azure"])
def test_a_manifest_that_is_there_is_not_replaced_where_the_store_can_refuse_it(request, store_name):
    remote = request.getfixturevalue(store_name)
    kept = Store(remote.ref("once"), patience=0)
    kept.put_last(b"first", "manifest.json")
    kept.put_last(b"first", "manifest.json")
    error = refused(lambda: kept.put_last(b"other", "manifest.json"))
    assert (error.reason, remote.read("once/manifest.json")) == (Reason.ARTIFACT_FAILED, b"first")
    assert "retryNonce" in error.next_step


@pytest.mark.parametrize("store_name", ["google", "azure"])
def test_a_manifest_whose_answer_got_lost_is_known_again(request, store_name):
    remote = request.getfixturevalue(store_name)
    left = Counter({"answers": 1})

    def loses_the_answer(method, _path):
        left["answers"] -= method == "PUT"
        return "lost" if method == "PUT" and left["answers"] == 0 else None

    remote.fault = loses_the_answer
    Store(remote.ref("lost")).put_last(b"first", "manifest.json")
    assert left["answers"] < 0, "it was written once more"
    assert remote.read("lost/manifest.json") == b"first"


# Commands of pods.


def fetched(bucket, uri, to, sha256=None) -> int:
    return fetch.main(argparse.Namespace(uri=uri, to=to, sha256=sha256, endpoint=bucket.endpoint))


@pytest.mark.alike
def test_fetch_brings_a_model_and_again_is_fine(any_bucket, tuned, tmp_path):
    artifact_store.keep(tuned, Store(any_bucket.ref("f/job")), "model-1")
    sha256 = hashlib.sha256((tuned / "manifest.json").read_bytes()).hexdigest()
    for _ in range(2):
        assert fetched(any_bucket, f"{any_bucket.root}/f/job/model-1", tmp_path / "to" / "model", sha256) == ExitCode.OK
        assert same(tuned, tmp_path / "to" / "model")
    assert (
        fetched(any_bucket, f"{any_bucket.root}/f/job/model-1", tmp_path / "other", "0" * 64) == ExitCode.MODEL_UNUSABLE
    )


def test_fetch_takes_the_place_of_a_model_but_of_no_other_folder(bucket, tuned, tmp_path, capsys):
    artifact_store.keep(tuned, Store(bucket.ref("place")), "model-1")
    place = tmp_path / "to"
    shutil.copytree(tuned, place)
    (place / "adapter_config.json").write_text("damaged")
    assert fetched(bucket, "s3://models/place/model-1", place) == ExitCode.OK
    assert same(tuned, place)
    (place / "manifest.json").write_text('{"name": "a page", "icons": []}')
    assert fetched(bucket, "s3://models/place/model-1", place) == ExitCode.SPEC_INVALID
    (place / "manifest.json").unlink()
    assert fetched(bucket, "s3://models/place/model-1", place) == ExitCode.SPEC_INVALID
    assert "it holds other files, which would be lost. Name a new or an empty folder." in capsys.readouterr().err
    assert (place / "adapter_model.safetensors").is_file()


@pytest.mark.parametrize("uri", ["pvc://models/x", "s3://models", "https://host/x", "models", "s3://models/../x"])
def test_fetch_takes_a_folder_of_a_store_only(bucket, tmp_path, uri, capsys):
    assert fetched(bucket, uri, tmp_path / "to") == ExitCode.SPEC_INVALID
    assert "s3://BUCKET/PATH" in capsys.readouterr().err


def pruned(bucket, folder) -> int:
    root = f"{bucket.root}/team-a/sentiment"
    return prune.main(argparse.Namespace(folders=[folder], root=root, endpoint=bucket.endpoint))


def test_prune_deletes_a_folder_of_a_store_and_nothing_beside_it(any_bucket):
    for name in ("job-1/model-1/a", "job-1/attempts/000001", "job-10/model-1/a"):
        any_bucket.write(f"team-a/sentiment/{name}", b"x")
    for _ in range(2):
        assert pruned(any_bucket, f"{any_bucket.root}/team-a/sentiment/job-1") == ExitCode.OK
        assert any_bucket.names("team-a") == ["sentiment/job-10/model-1/a"]


@pytest.mark.parametrize("folder", ["", "-other/job", "/../other/job", "/job/.."])
def test_prune_refuses_what_is_outside_of_its_root(bucket, folder):
    bucket.write("team-a/sentiment/job-3/model-1/a", b"x")
    bucket.write("team-a/other/job/a", b"x")
    assert pruned(bucket, f"s3://models/team-a/sentiment{folder}") == ExitCode.SPEC_INVALID
    assert {"sentiment/job-3/model-1/a", "other/job/a"} <= set(bucket.names("team-a"))
