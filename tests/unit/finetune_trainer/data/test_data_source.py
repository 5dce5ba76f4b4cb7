"""Stores: what they hold is read and hashed, and what goes wrong there has a reason, never a stack trace."""

import asyncio
import datetime as dt
import hashlib
import ipaddress
import json
import os
import socket
import ssl
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from finetune_api.exit_codes import ExitCode
from finetune_api.uris import DATASET_SCHEMES, parse_uri
from finetune_trainer.__main__ import main
from finetune_trainer.data.files import source
from finetune_trainer.data.files.source import Source, store_error
from finetune_trainer.errors import TrainerError

DATA = b'{"prompt": "a", "completion": "b"}\n' * 1000
LISTING = b"<ListBucketResult><Name>bucket</Name><KeyCount>0</KeyCount></ListBucketResult>"


class _Store(BaseHTTPRequestHandler):
    """Serves DATA under any name that ends in .jsonl, whole or by range; /404/… and so on answer with that status.

    /elsewhere/… leads to an address without TLS.
    """

    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self._answer(body=False)

    def do_GET(self):
        self._answer(body=True)

    def _answer(self, *, body):
        if self.path.startswith("/elsewhere/"):
            self.send_response(302)
            self.send_header("Location", f"http://127.0.0.1:{self.server.server_port}/train.jsonl")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        listing = "list-type" in self.path  # what S3 is asked for where an object is not there: a folder of that name
        status = 200 if listing else next((int(part) for part in self.path.split("/") if part.isdigit()), 200)
        data = (LISTING if listing else DATA) if status == 200 else b""
        first, last = 0, len(data) - 1
        if status == 200 and "Range" in self.headers:
            span = self.headers["Range"].removeprefix("bytes=").split("-")
            first, last = int(span[0]), min(int(span[1] or last), last)
            status = 206
        part = data[first : last + 1]
        self.send_response(status)
        self.send_header("Content-Length", str(len(part)))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", '"1"')
        self.send_header("Last-Modified", "Sat, 21 Nov 2026 00:00:00 GMT")
        if status == 206:
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        self.end_headers()
        if body:
            self.wfile.write(part)

    def log_message(self, *_):
        """Nothing: the tests' output is for the tests."""


@pytest.fixture
def store():
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Store)
    thread = Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def s3(store, monkeypatch):
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{store.server_port}",
        "AWS_ACCESS_KEY_ID": "id",
        "AWS_SECRET_ACCESS_KEY": "key",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_MAX_ATTEMPTS": "1",
    }.items():
        monkeypatch.setenv(name, value)
    yield
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.mark.usefixtures("s3")
def test_an_object_is_read_counted_and_hashed():
    with Source(parse_uri("s3://bucket/train.jsonl"), air_gapped=True) as source:
        assert source.sha256 is None
        assert source.stream.read() == DATA
        assert (source.size, source.sha256) == (len(DATA), hashlib.sha256(DATA).hexdigest())


@pytest.mark.usefixtures("s3")
@pytest.mark.parametrize(
    ("status", "reason", "said"),
    [
        (404, "DatasetNotFound", "train.jsonl is not in s3://bucket"),
        (403, "AccessDenied", "train.jsonl: s3://bucket does not let it be read"),
        (500, "StoreUnavailable", "train.jsonl: s3://bucket does not answer as it should"),
    ],
)
def test_a_bucket_says_no(status, reason, said):
    with pytest.raises(TrainerError, match=said) as raised:
        Source(parse_uri(f"s3://bucket/{status}/train.jsonl"), air_gapped=False)
    assert raised.value.reason == reason
    assert raised.value.next_step


def test_missing_credentials_are_a_matter_of_access(store, monkeypatch, tmp_path):
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{store.server_port}")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(TrainerError) as raised:
        Source(parse_uri("s3://bucket/train.jsonl"), air_gapped=False)
    assert raised.value.reason == "AccessDenied"
    assert "name a Secret of the job's namespace that has them in spec.dataset.secretRef" in raised.value.next_step
    s3fs.S3FileSystem.clear_instance_cache()


def test_a_hub_that_may_not_be_asked_is_no_place_to_name_instead():
    with pytest.raises(TrainerError, match="air-gapped") as raised:
        Source(parse_uri("hf://datasets/org/rows/train.jsonl"), air_gapped=True)
    assert [one for one in DATASET_SCHEMES if f"{one}://" not in raised.value.next_step] == ["hf"]


def test_a_store_that_is_not_there_is_unavailable():
    with pytest.raises(TrainerError) as raised:
        Source(parse_uri("https://127.0.0.1:9/train.jsonl"), air_gapped=True)
    assert raised.value.exit_code == ExitCode.SERVICE_UNAVAILABLE


@pytest.mark.usefixtures("s3")
def test_in_a_pod_a_store_that_does_not_answer_is_asked_again_for_a_while(clock, monkeypatch):
    """A proxy beside the trainer, a network policy or a name server may come up after it."""
    opening, fails = source._open_remote, [ConnectionRefusedError(111, "x"), socket.gaierror(socket.EAI_AGAIN, "x")]

    def comes_up(uri):
        if fails:
            raise fails.pop()
        return opening(uri)

    monkeypatch.setattr(source, "_open_remote", comes_up)
    with pytest.raises(TrainerError, match="its name cannot be resolved"):
        Source(parse_uri("s3://bucket/train.jsonl"), air_gapped=False)
    assert clock.now == 0
    fails.append(socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"))
    with Source(parse_uri("s3://bucket/train.jsonl"), air_gapped=False, patient=True) as opened:
        assert opened.stream.read() == DATA
    assert clock.now == 1 + 2


class StatusError(Exception):
    def __init__(self, **attributes):
        super().__init__("https://host/?id=secret")
        self.__dict__ |= attributes


class RefreshError(Exception):
    """Named as google-auth names it."""


class OuterError(Exception):
    pass


def _caused():
    error = OuterError()
    error.__cause__ = RefreshError()
    return error


_BAD_REQUEST = {"ResponseMetadata": {"HTTPStatusCode": 400}}


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (FileNotFoundError("x"), "DatasetNotFound"),
        (NotADirectoryError("x"), "DatasetNotFound"),
        (IsADirectoryError("x"), "DatasetNotFound"),
        (PermissionError("x"), "AccessDenied"),
        (TimeoutError("x"), "StoreUnavailable"),
        (OSError(5, "Input/output error"), "StoreUnavailable"),
        (StatusError(status=404), "DatasetNotFound"),
        (StatusError(status=401), "AccessDenied"),
        (StatusError(code=403), "AccessDenied"),
        (StatusError(status_code=503), "StoreUnavailable"),
        (StatusError(response={"ResponseMetadata": {"HTTPStatusCode": 403}}), "AccessDenied"),
        (StatusError(response={**_BAD_REQUEST, "Error": {"Code": "ExpiredToken"}}), "AccessDenied"),
        (StatusError(response={**_BAD_REQUEST, "Error": {"Code": "InvalidToken"}}), "AccessDenied"),
        (StatusError(response={**_BAD_REQUEST, "Error": {"Code": "400"}}), "StoreUnavailable"),
        (StatusError(response={**_BAD_REQUEST, "Error": None}), "StoreUnavailable"),
        (StatusError(response=StatusError(status_code=404)), "DatasetNotFound"),
        (OSError("Forbidden: https://storage.googleapis.com/secret"), "AccessDenied"),  # as gcsfs words it
        (RefreshError(), "AccessDenied"),
        (_caused(), "AccessDenied"),
        (ImportError("x", name="gcsfs"), "SpecInvalid"),
        (RuntimeError("secret"), "StoreUnavailable"),
    ],
)
def test_errors_of_stores_have_a_reason_and_are_not_quoted(error, reason):
    found = store_error(parse_uri("gs://bucket/folder/train.jsonl"), error)
    assert found.reason == reason
    assert found.message.startswith("train.jsonl")
    assert "secret" not in found.message


class _Gone:
    def read(self, _size):
        raise OSError(5, "Input/output error")

    def close(self):
        """Closed by the source at its end."""


def test_an_error_in_the_middle_of_a_file_has_a_reason_too(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_bytes(10 * DATA)
    with Source(parse_uri(f"file://{path}", allow_local=True), air_gapped=False) as source:
        source.stream.read(10)
        source._raw._stored = _Gone()
        with pytest.raises(TrainerError) as raised:
            source.drain()
    assert raised.value.reason == "StoreUnavailable"


@pytest.fixture
def https(tmp_path, store):
    """The store behind TLS; gives the variables that make a client trust it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (tmp_path / "cert.pem").write_bytes(pem)
    (tmp_path / "both.pem").write_bytes(pem + private)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "both.pem")
    store.socket = context.wrap_socket(store.socket, server_side=True)
    return {"SSL_CERT_FILE": str(tmp_path / "cert.pem"), "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}


@pytest.mark.parametrize(
    ("path", "code", "reason"),
    [
        ("train.jsonl?id=secret", ExitCode.OK, "Valid"),
        ("404/train.jsonl", ExitCode.DATASET_NOT_FOUND, "DatasetNotFound"),
        ("403/train.jsonl?id=secret", ExitCode.ACCESS_DENIED, "AccessDenied"),
        ("503/train.jsonl", ExitCode.SERVICE_UNAVAILABLE, "StoreUnavailable"),
        ("elsewhere/train.jsonl?id=secret", ExitCode.ACCESS_DENIED, "AccessDenied"),
    ],
)
def test_https_is_checked_by_the_command(path, code, reason, https, store, tmp_path, monkeypatch, capsys):
    for name, value in https.items():
        monkeypatch.setenv(name, value)
    # As aiohttp makes it when it is imported.
    monkeypatch.setattr("aiohttp.connector._SSL_CONTEXT_VERIFIED", ssl.create_default_context())
    manifest = {
        "apiVersion": "finetune.dev/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": "job"},
        "spec": {
            "connectionRef": {"name": "c"},
            "baseModel": "m",
            "modelRef": {"name": "m"},
            "dataset": {"train": {"uri": f"https://127.0.0.1:{store.server_port}/{path}"}},
        },
    }
    (tmp_path / "job.json").write_text(json.dumps(manifest))
    ended = main(["check", "-f", str(tmp_path / "job.json")])
    said = capsys.readouterr()
    assert ended == code, said.err
    verdict = json.loads(said.out)
    assert verdict["reason"] == reason
    assert "secret" not in said.out + said.err
    assert "Traceback" not in said.err
    assert ("to an address without TLS" in verdict["message"]) == path.startswith("elsewhere")
    if code == ExitCode.OK:
        assert verdict["train"]["sha256"] == hashlib.sha256(DATA).hexdigest()


@pytest.mark.usefixtures("https")
def test_a_certificate_that_is_not_trusted_is_told_with_who_can_have_it_trusted(store):
    with pytest.raises(TrainerError) as raised:
        Source(parse_uri(f"https://127.0.0.1:{store.server_port}/train.jsonl"), air_gapped=False)
    assert raised.value.reason == "StoreUnavailable"
    assert raised.value.message.endswith("its certificate is not trusted")
    assert "podTemplate.caBundleRef" in raised.value.next_step


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("https://127.0.0.1:9/a.csv", "nothing listens at its address"),
        ("https://store.invalid/a.csv", "its name cannot be resolved"),
        ("https://127.0.0.1:PORT/a.csv", "it does not speak TLS"),
    ],
)
def test_why_a_server_was_not_heard_is_said(uri, said, store):
    with pytest.raises(TrainerError, match=said) as raised:
        Source(parse_uri(uri.replace("PORT", str(store.server_port))), air_gapped=False)
    assert raised.value.reason == "StoreUnavailable"


@pytest.mark.parametrize("uri", ["s3://data/a.csv", "gs://data/a.csv", "abfs://data/a.csv", "https://host/a.csv"])
def test_what_is_in_no_store_is_no_matter_of_volumes_and_config_maps(uri):
    error = store_error(parse_uri(uri), FileNotFoundError())
    assert error.reason == "DatasetNotFound"
    assert error.next_step.startswith("Check the uri: ")
    assert "volume" not in error.next_step


def test_an_endpoint_of_s3_that_is_no_url_is_named(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "minio.team-a.svc:9000")
    error = store_error(parse_uri("s3://data/a.csv"), ValueError("Invalid endpoint"))
    assert error.next_step == "AWS_ENDPOINT_URL is not a URL: it begins with https:// or http://."


def read(uri) -> bytes:
    with Source(parse_uri(uri), air_gapped=False) as source:
        return source.stream.read()


def test_data_at_google_are_read_with_the_key_in_the_datas_secret(google, monkeypatch):
    google.write("data/train.jsonl", DATA)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", google.endpoint)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS_JSON", google.keys["GOOGLE_APPLICATION_CREDENTIALS_JSON"])
    assert read("gs://models/data/train.jsonl") == DATA
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS_JSON", "{}")
    with pytest.raises(TrainerError, match=r"dataset\.secretRef: GOOGLE_APPLICATION_CREDENTIALS_JSON is not the key"):
        read("gs://models/data/train.jsonl")


def test_data_at_azure_are_read_with_the_key_in_the_datas_secret(azure, monkeypatch):
    azure.write("data/train.jsonl", DATA)
    account = f"AccountName=modelstore;AccountKey={azure.keys['AZURE_STORAGE_ACCOUNT_KEY']}"
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", f"{account};BlobEndpoint={azure.endpoint}")
    assert read("abfs://models/data/train.jsonl") == DATA


@pytest.fixture
def of_stores(google, azure, monkeypatch):
    """Both buckets, with one file, and the keys of the data in the environment."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", google.endpoint)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS_JSON", google.keys["GOOGLE_APPLICATION_CREDENTIALS_JSON"])
    account = f"AccountName=modelstore;AccountKey={azure.keys['AZURE_STORAGE_ACCOUNT_KEY']}"
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", f"{account};BlobEndpoint={azure.endpoint}")
    for bucket in (google, azure):
        bucket.write("data/train.jsonl", DATA)
    return {"gs": google, "abfs": azure}


@pytest.mark.usefixtures("of_stores")
@pytest.mark.parametrize("scheme", ["gs", "abfs"])
def test_a_folder_of_a_store_is_no_empty_file(scheme):
    with pytest.raises(TrainerError, match="is a folder, not a file") as raised:
        read(f"{scheme}://models/data")
    assert raised.value.reason == "DatasetNotFound"


def test_an_object_that_is_replaced_while_it_is_read_is_told_as_that(of_stores, bucket, monkeypatch):
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_ENDPOINT_URL": bucket.endpoint}
    for name, value in keys.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(source, "_BLOCK", 1000)
    for scheme, store in {**of_stores, "s3": bucket}.items():
        store.write("data/train.jsonl", 10 * DATA)  # more than is read at once
        with Source(parse_uri(f"{scheme}://models/data/train.jsonl"), air_gapped=False) as opened:
            opened.stream.read(10)
            store.write("data/train.jsonl", 10 * DATA.replace(b'"a"', b'"another"'))
            with pytest.raises(TrainerError, match="has changed while it was read") as raised:
                opened.drain()
        assert raised.value.reason == "DatasetInvalid"


@pytest.mark.parametrize("keys", ["", "nonsense"])
def test_keys_of_azure_that_are_none_are_a_matter_of_access(keys, monkeypatch):
    from adlfs import AzureBlobFileSystem

    AzureBlobFileSystem.clear_instance_cache()
    for name in [name for name in os.environ if name.startswith("AZURE_")]:
        monkeypatch.delenv(name)
    if keys:
        monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", keys)
    with pytest.raises(TrainerError) as raised:
        read("abfs://models/data/train.jsonl")
    assert raised.value.reason == "AccessDenied"
    assert "AZURE_STORAGE_CONNECTION_STRING" in raised.value.next_step


@pytest.mark.parametrize("given", [{}, {"CLIENT_ID": "c", "TENANT_ID": "t", "CLIENT_SECRET": "s"}])
def test_azure_is_asked_once_for_a_token_that_it_does_not_give(given, monkeypatch):
    """Its library asks for what is refused four times, within a minute and a half."""
    from azure.core.exceptions import ClientAuthenticationError
    from azure.identity import aio

    asked = []

    class GivesNone:
        def __init__(self, **_):
            pass

        async def get_token(self, *scopes, **_):
            asked.append(scopes)
            raise ClientAuthenticationError("DefaultAzureCredential failed to retrieve a token")

        async def close(self):
            pass

    for name in [name for name in os.environ if name.startswith("AZURE_")]:
        monkeypatch.delenv(name)
    for name, value in {"ACCOUNT_NAME": "modelstore", **given}.items():
        monkeypatch.setenv(f"AZURE_STORAGE_{name}", value)
    for name in ("DefaultAzureCredential", "ClientSecretCredential"):
        monkeypatch.setattr(aio, name, GivesNone)
    monkeypatch.setattr(asyncio, "sleep", _waited)
    with pytest.raises(TrainerError) as raised:
        read("abfs://models/data/train.jsonl")
    assert len(asked) == 1
    assert raised.value.reason == "AccessDenied"
    assert raised.value.message == (
        "train.jsonl: abfs://models does not let it be read: Azure gives no token for it (ClientAuthenticationError)"
    )
    assert "AZURE_STORAGE_CONNECTION_STRING" in raised.value.next_step
    assert "service account" in raised.value.next_step


async def _waited(seconds):
    raise AssertionError(f"waited for {seconds} s")


def test_a_proxy_that_wants_a_password_is_told_as_that():
    error = store_error(parse_uri("https://host/a.csv"), StatusError(status=407))
    assert (error.reason, "HTTPS_PROXY=http://USER" in error.next_step) == ("AccessDenied", True)
    assert error.message == "a.csv: the proxy before https://host requires a user and a password"


def test_a_file_that_a_hub_does_not_have_is_told_with_its_repository():
    error = store_error(parse_uri("hf://datasets/team/tickets/data/none.jsonl"), FileNotFoundError())
    assert error.message.startswith("none.jsonl is not in hf://datasets/team/tickets (")
