"""Dataset and artifact URIs: what is taken, and what is said about the rest."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from finetune_api.connection import Artifacts
from finetune_api.evaluation import Output
from finetune_api.uris import ARTIFACT_HELP, UriError, parse_artifact_uri, parse_uri


@pytest.mark.parametrize(
    ("text", "scheme", "root", "path", "mounted"),
    [
        ("pvc://data/train.jsonl", "pvc", "data", "train.jsonl", "/var/lib/finetune/claims/data/train.jsonl"),
        ("pvc://data/a/b.csv", "pvc", "data", "a/b.csv", "/var/lib/finetune/claims/data/a/b.csv"),
        ("configmap://rows/train.csv", "configmap", "rows", "train.csv", "/var/lib/finetune/configmaps/rows/train.csv"),
        ("s3://bucket/key/train.parquet", "s3", "bucket", "key/train.parquet", None),
        ("gs://bucket/train.json", "gs", "bucket", "train.json", None),
        ("abfs://box@account.dfs.core.windows.net/a.csv", "abfs", "box@account.dfs.core.windows.net", "a.csv", None),
        ("hf://datasets/owner/name/train.jsonl", "hf", "datasets", "owner/name/train.jsonl", None),
        ("hf://datasets/a-b/c.d_e@refs/pr/1/x y.csv", "hf", "datasets", "a-b/c.d_e@refs/pr/1/x y.csv", None),
        ("https://example.com/a/train.csv", "https", "example.com", "a/train.csv", None),
        (
            "https://huggingface.co/datasets/owner/name/resolve/main/a.csv",
            *("https", "huggingface.co", "datasets/owner/name/resolve/main/a.csv", None),
        ),
        ("https://example.com/a.csv?download=true&sign=x", "https", "example.com", "a.csv", None),
        ("s3://bucket/a?token=1.csv", "s3", "bucket", "a?token=1.csv", None),
    ],
)
def test_a_good_uri_is_taken_apart(text: str, scheme: str, root: str, path: str, mounted: str | None) -> None:
    uri = parse_uri(text)
    assert (uri.scheme, uri.root, uri.path, uri.mounted_path()) == (scheme, root, path, mounted)
    assert uri.text == text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("train.jsonl", "no scheme"),
        ("/data/train.jsonl", "no scheme"),
        ("ftp://host/file", "ftp: not a place that a dataset is read from"),
        ("http://host/file", "http: not a place"),
        ("file:///data/train.jsonl", "works in `finetune-trainer check` and `run` only"),
        ("pvc://data", "names no file"),
        ("pvc://data/", "names no file"),
        ("pvc://data/../other/train.jsonl", "'..' segment"),
        ("pvc://data/..", "'..' segment"),
        ("https://example.com/a/../b.csv", "'..' segment"),
        ("pvc://data/train.jsonl ", "ends with a space"),
        ("s3://bucket/train.jsonl\u3000", "a character that is not seen"),
        ("configmap://rows/a/b.csv", "no '/'"),
        ("https://user:password@example.com/a.csv", "spec.dataset.secretRef"),
        ("s3://KEY:SECRET@bucket/a.csv", "spec.dataset.secretRef"),
        ("pvc://Data_X/a.csv", "this is not the name of a claim"),
        ("configmap://-rows/a.csv", "this is not the name of a ConfigMap"),
        ("abfss://c@a.dfs.core.windows.net/t.csv", "abfss: not a place that a dataset is read from (write abfs://)"),
        ("s3a://b/t.csv", "(write s3://)"),
        ("gcs://b/t.csv", "(write gs://)"),
        ("http://h/t.csv", "(write https://)"),
        ("\u201cs3://b/t.csv\u201d", "begins or ends with a space or a quotation mark"),
        ("'s3://b/t.csv'", "begins or ends with a space or a quotation mark"),
        (" s3://b/t.csv", "begins or ends with a space or a quotation mark"),
        ("pvc://data/t.csv ", "begins or ends with a space or a quotation mark"),
        ("s3:///t.csv", "names no place"),
        ("https:///t.csv", "names no place"),
        ("hf://datasets/my team/name/x.csv", "write hf://datasets/OWNER/NAME/PATH"),
        ("hf://datasets/owner/name:main/x.csv", "write hf://datasets/OWNER/NAME/PATH"),
        ("https://huggingface.co/datasets/owner/name", "a page of a hub, not a file: write hf://datasets/OWNER/NAME/"),
        ("https://hf.co/datasets/owner/name/tree/main/data", "a page of a hub, not a file: write hf://datasets/OWNER"),
        ("https://huggingface.co/datasets/owner/name/blob/main/a.csv", "a page of a hub, not a file"),
        *((f"s3{mark}bucket/t.csv", "write s3://, with a colon and two slashes") for mark in ("//", ":/", ":")),
        ("S3:/bucket/t.csv", "write s3://, with a colon and two slashes"),
        ("gcs:/bucket/t.csv", "write gs://, with a colon and two slashes"),
        ("pvc//data/t.csv", "write pvc://, with a colon and two slashes"),
        ("https//example.com/t.csv", "write https://, with a colon and two slashes"),
        ("huggingface.co/datasets/owner/name", "a page of a hub, not a file: write hf://datasets/OWNER/NAME/"),
        ("C:/data/t.csv", "a Windows path does not exist in a pod"),
        ("C:\\data\\t.csv", "a Windows path does not exist in a pod"),
        ("azure://box/t.csv", "(write abfs://)"),
        ("data//t.csv", "no scheme"),
        ("s3://<bucket>/t.csv", "write what the placeholder stands for"),
        ("pvc://data/${FILE}", "write what the placeholder stands for"),
        ("gs://{{ bucket }}/t.csv", "write what the placeholder stands for"),
    ],
)
def test_a_bad_uri_is_refused_with_what_to_write(text: str, says: str) -> None:
    with pytest.raises(UriError) as error:
        parse_uri(text)
    assert says in str(error.value)


def test_a_folder_has_a_name_for_messages() -> None:
    assert parse_uri("pvc://data/rows/").file_name == "rows"
    with pytest.raises(UriError, match="a character that is not seen"):
        parse_uri("file:///data/a%00b.csv", allow_local=True)


def test_credentials_in_a_uri_are_never_repeated() -> None:
    with pytest.raises(UriError) as error:
        parse_uri("https://user:hunter2@example.com/a.csv")
    assert "hunter2" not in str(error.value)


def test_messages_name_the_file_without_what_follows_a_question_mark() -> None:
    assert parse_uri("https://example.com/a/train.csv?id=secret").file_name == "train.csv"


SIGNATURES = (
    "sv=2022-11-02&sig=hunter2", "X-Amz-Credential=K&X-Amz-Signature=hunter2", "X-Goog-Signature=hunter2",
    "AWSAccessKeyId=K&Signature=hunter2", "token=hunter2", "access_token=hunter2", "api_key=hunter2", "apiKey=hunter2",
)  # fmt: skip


@pytest.mark.parametrize("query", SIGNATURES)
def test_a_signed_address_is_refused_as_credentials_are(query: str) -> None:
    with pytest.raises(UriError, match="holds a signature or a key") as error:
        parse_uri(f"https://account.blob.core.windows.net/c/t.csv?{query}")
    assert "hunter2" not in str(error.value)
    assert "spec.dataset.secretRef" in str(error.value)


def test_local_files_are_for_laptops() -> None:
    uri = parse_uri("file:///data/train.jsonl", allow_local=True)
    assert uri.mounted_path() == "/data/train.jsonl"


@given(st.text())
def test_any_text_is_either_parsed_or_refused_in_words(text: str) -> None:
    try:
        uri = parse_uri(text)
    except UriError:
        return
    assert uri.path
    assert ".." not in uri.path.split("/")


@given(st.lists(st.sampled_from(["..", "a", ".", "", "b c", "%2e%2e"]), min_size=1).map("/".join))
def test_a_mounted_path_never_leaves_its_claim(path: str) -> None:
    try:
        mounted = parse_uri(f"pvc://claim/{path}").mounted_path()
    except UriError:
        return
    assert mounted is not None
    assert mounted.startswith("/var/lib/finetune/claims/claim/")
    assert ".." not in mounted.split("/")


@pytest.mark.parametrize(
    ("text", "root", "path"),
    [
        ("pvc://models", "models", ""),
        ("pvc://models/", "models", ""),
        ("pvc://models/a/b/", "models", "a/b"),
        ("s3://bucket", "bucket", ""),
        ("s3://bucket/a/b", "bucket", "a/b"),
        ("gs://bucket/a/b/", "bucket", "a/b"),
        ("abfs://models@account.dfs.core.windows.net/a", "models@account.dfs.core.windows.net", "a"),
    ],
)
def test_an_artifact_uri_is_a_claim_or_a_bucket_with_an_optional_prefix(text: str, root: str, path: str) -> None:
    uri = parse_artifact_uri(text)
    assert (uri.root, uri.path) == (root, path)


@pytest.mark.parametrize(
    "text",
    [
        *("hf://bucket/a", "models", "pvc://", "s3://", "gs://", "pvc://models/../x", ""),
        *("s3://key:secret@bucket/a", "gs://key@bucket", "s3://bucket:9000/a", "gs://Bucket"),
        *("abfs://models/a", "abfs://models@account/a", "abfs://m:key@account.dfs.core.windows.net/a"),
    ],
)
def test_other_artifact_uris_are_refused(text: str) -> None:
    with pytest.raises(UriError):
        parse_artifact_uri(text)


@pytest.mark.parametrize("text", ["pvc://c", "s3://b", "gs://b", "abfs://c@account.dfs.core.windows.net"])
def test_the_help_on_artifact_uris_names_each_kind_of_place(text: str) -> None:
    assert text.partition("://")[0] + "://" in ARTIFACT_HELP


@pytest.mark.parametrize("text", ["s3://Models/team-a", "gs://b"])
def test_a_place_that_is_wrong_only_in_its_buckets_name_is_told_what_names_look_like(text: str) -> None:
    with pytest.raises(UriError, match=r"names are in lower case, and a bucket's has at least 3 characters"):
        parse_artifact_uri(text)


@pytest.mark.parametrize("path", ["a ", "'a'", "a\u200bb", "a\u0378", "a\u201d", "..", "a\n"])
def test_a_place_that_the_parser_would_refuse_is_wrong_in_its_field(path: str) -> None:
    """Whatever the API server lets pass: an operator that met it later would fail at each look."""
    for model in (Artifacts, Output):
        with pytest.raises(ValidationError):
            model.model_validate({"uri": f"pvc://models/{path}"})


@pytest.mark.parametrize("text", ["pvc://models/a#1", "s3://bucket/a?versionId=1"])
def test_what_stands_behind_the_path_of_a_folder_is_not_dropped_in_silence(text: str) -> None:
    with pytest.raises(ValidationError, match=r"neither '[?]' nor '#'"):
        Artifacts.model_validate({"uri": text})
