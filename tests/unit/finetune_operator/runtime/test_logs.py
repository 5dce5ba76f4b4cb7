"""Log lines are JSON, name their object, and hold no secret, whoever writes them."""

import io
import json
import logging
import sys
import time

import pytest

from finetune_api.crds import KINDS
from finetune_api.schema import structural_schema
from finetune_operator.runtime import logs

JWT = "eyJhbGciOiJSUzI1NiIsImtpZCI6IngifQ.eyJhdWQiOlsicmVwb3J0cyJdfQ.c2lnbmF0dXJlLXNpZ25hdHVyZQ"
# Put together here so that scanners of the repository do not take them for real ones.
OPENAI, HUB, AWS = "sk-" + "proj-" + "a1B2" * 6, "hf_" + "aB3d" * 8, "AKIA" + "ABCD1234" * 2
PEM = "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEIB\nabcd\n-----END EC PRIVATE KEY-----"


@pytest.fixture
def lines(request):
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    stream = io.StringIO()
    logs.configure(getattr(request, "param", "INFO"), stream)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    for handler in list(root.handlers):
        root.removeHandler(handler)
    for handler in before:
        root.addHandler(handler)
    root.setLevel(level)
    logging.captureWarnings(capture=False)


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        (f"token {JWT} was refused", JWT),
        (f"Authorization: Bearer {JWT}", JWT),
        (f"x-{JWT}", JWT),
        (f"-eyJ-eyJ.{JWT}", JWT),
        ("authorization: bearer abcdef123456", "abcdef123456"),
        ("{'Authorization': 'Basic dXNlcjpwYXNz'}", "dXNlcjpwYXNz"),
        ('{"api-key": "0123456789abcdef"}', "0123456789abcdef"),
        ("openai.api_key=zzz-very-secret", "zzz-very-secret"),
        (f"Incorrect API key provided: {OPENAI}.", OPENAI),
        (f"downloading with {HUB}", HUB),
        (f"credential {AWS} is not allowed", AWS),
        ("AWS_SECRET_ACCESS_KEY='wJalrXUtnFEMI/K7MDENG'", "wJalrXUtnFEMI"),
        ("HF_TOKEN=abcd1234", "abcd1234"),
        ('"client_secret": "s3cr3t\\"still"', 's3cr3t'),
        ("password: hunter2", "hunter2"),
        ("apiKeyRefresh=hunter2", "hunter2"),
        ("https://x.blob.core.windows.net/c?sv=1&sig=abc%2Fdef", "abc%2Fdef"),
        ("https://b.s3.amazonaws.com/k?X-Amz-Signature=0a1b2c&x=1", "0a1b2c"),
        ("no answer by http://proxy-user:hunter2@proxy:3128", "hunter2"),
        ("https://user:p@ss@mlflow.example.com/api: 401", "ss"),
        ("fatal: https://0a1b2c3d4e5f@git.example.com/team/data.git", "0a1b2c3d4e5f"),
        ("s3://key:hunter2@bucket/train.jsonl", "hunter2"),
        (f"key:\n{PEM}\nend", "MHcCAQEEIB"),
        (f"cut off {PEM[:40]}", "MHcC"),
    ],
)  # fmt: skip
def test_what_looks_like_a_secret_is_taken_out(text, secret):
    redacted = logs.redact(text)
    assert secret not in redacted
    assert logs.REDACTED in redacted
    assert logs.redact(redacted) == redacted


@pytest.mark.parametrize(
    "text",
    [
        "job team/sentiment-1: 61021 tokens, tokensPerSecond: 412, maxTokens=64",
        "train.jsonl line 17: completion is empty",
        "Secret team/openai has no key api-key",
        "abfs://data@account.dfs.core.windows.net/train.jsonl is not there",
        "https://host:8080/a@b, s3://bucket/a:b@c and mail@example.com",
        "arn:aws:s3:::bucket and ssh://git@git.example.com/team/data.git",
        "tokenizer=SmolLM2 not found in the model cache",
        "uid 0b9c7a1e-4f6e-4d43-a1c5-8d1f7f3c2b10",
        "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    ],
)
def test_what_is_no_secret_stays(text):
    assert logs.redact(text) == text


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)
def test_what_is_said_of_a_field_stays(kind):
    for schema in (kind.spec, kind.status):
        said = [f'{field}: secret "team" not found' for field in fields_of(structural_schema(schema))]
        assert said
        assert [logs.redact(text) for text in said] == said


def fields_of(schema):
    for name, part in schema.get("properties", {}).items():
        yield from (name, *fields_of(part), *fields_of(part.get("items", {})))


def test_a_line_names_time_level_logger_message_and_object(lines):
    with logs.about("FineTuneJob", "team", "sentiment-1"):
        logging.getLogger("finetune_operator.x").info("attempt %d", 2)
    logging.getLogger("finetune_operator.x").debug("not at this level")
    (line,) = lines()
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "INFO",
        "logger": "finetune_operator.x",
        "message": "attempt 2",
        "kind": "FineTuneJob",
        "namespace": "team",
        "name": "sentiment-1",
    }


def test_secrets_in_arguments_and_exceptions_do_not_reach_the_log(lines):
    try:
        int(f"Authorization: Bearer {JWT}")
    except ValueError:
        logging.getLogger("finetune_operator.x").exception("asked with %s and %r", JWT, {"password": "hunter2"})
    (line,) = lines()
    assert JWT not in json.dumps(line)
    assert "hunter2" not in json.dumps(line)
    assert "ValueError" in line["traceback"]


def test_kopfs_object_loggers_name_their_object(lines):
    from kopf._core.actions.loggers import ObjectLogger

    body = {
        "apiVersion": "finetune.dev/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": "a", "namespace": "team"},
    }
    import kopf

    ObjectLogger(body=body, settings=kopf.OperatorSettings()).warning("handler failed with api_key=%s", "abcdefgh")
    (line,) = lines()
    assert (line["kind"], line["namespace"], line["name"]) == ("FineTuneJob", "team", "a")
    assert "abcdefgh" not in line["message"]


@pytest.mark.parametrize("name", ["kopf", "aiohttp.server", "asyncio", "kubernetes", "py.warnings"])
def test_libraries_log_json_too_even_with_handlers_of_their_own(name):
    logging.getLogger(name).addHandler(logging.StreamHandler(sys.stderr))
    stream = io.StringIO()
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    try:
        logs.configure("INFO", stream)
        logging.getLogger(name).error("went wrong: token=%s", "abcdefgh")
    finally:
        root.handlers[:] = before
        root.setLevel(level)
        logging.captureWarnings(capture=False)
        logging.getLogger(name).handlers.clear()
    (line,) = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert line["logger"] == name
    assert "abcdefgh" not in line["message"]


@pytest.mark.parametrize("lines", ["DEBUG"], indirect=True)
def test_what_is_sent_to_aws_is_not_logged_however_much_is(lines):
    logging.getLogger("botocore.endpoint").debug("Making request with params: %s", {"body": "a row"})
    logging.getLogger("finetune_operator").debug("as much as this")
    assert [line["message"] for line in lines()] == ["as much as this"]


def test_requests_to_providers_are_no_lines_and_neither_are_entras_words(lines):
    logging.getLogger("httpx2").info('HTTP Request: GET https://api.example/v1/jobs "HTTP/1.1 200 OK"')
    logging.getLogger("azure.core.pipeline.policies.http_logging_policy").info("Request URL: …")
    logging.getLogger("azure.identity.aio").warning("get_token failed: what Entra said of the secret")
    logging.getLogger("azure.core").warning("something is wrong")
    assert [line["message"] for line in lines()] == ["something is wrong"]


def test_a_broken_format_string_is_still_a_line():
    record = logging.LogRecord("x", logging.INFO, __file__, 1, "%d rows", ("many",), None)
    assert json.loads(logs.JsonFormatter().format(record))["message"] == "%d rows ('many',)"


def test_a_huge_message_is_cut_and_its_secret_not_halved(lines):
    logging.getLogger("finetune_operator.x").info("%s", "x" * 8100 + PEM + "y" * 100_000)
    (line,) = lines()
    assert len(line["message"]) < 20_000
    assert "MHcC" not in line["message"]


@pytest.mark.parametrize(
    "part", ["-eyJaaaaaaaa", "-eyJaaaaaaaa.", "-eyJaaaaaaaa.aaa", "://a:", 'token="\\"', "bearer "]
)
def test_what_a_trainer_prints_does_not_hold_up_the_operator_where_secrets_are_looked_for(part):
    began = time.process_time()
    logs.redact(part * (200_000 // len(part)))
    assert time.process_time() - began < 3, "seconds, for 200,000 characters"


def test_a_message_with_newlines_is_one_line(lines):
    logging.getLogger("finetune_operator.x").info("two\nlines")
    assert [line["message"] for line in lines()] == ["two\nlines"]
