"""S3's own codes, of a store that answers a HEAD without a body: told as what they are, and not waited for."""

import os
from pathlib import Path

import pytest
from s3fs import S3FileSystem

from finetune_api.names import ARTIFACTS_PREFIX, DATA_PREFIX
from finetune_api.reasons import Reason
from finetune_api.trainer import StoreRef
from finetune_api.uris import parse_artifact_uri, parse_uri
from finetune_trainer.data.files.source import Source
from finetune_trainer.errors import TrainerError
from finetune_trainer.job.given import DATA_KEYS, take_data_keys
from finetune_trainer.storage.store import Store
from finetune_trainer.storage.store_clients import connect
from tests.unit.finetune_trainer.storage.s3_refusals import SECRET, refusing

_REGION = {"x-amz-bucket-region": "eu-central-1"}
SAID = {
    "an expired token": (400, "ExpiredToken", "", {}, "session token of its keys has expired", "AWS_SESSION_TOKEN"),
    "a token of others": (
        400,
        "InvalidToken",
        "",
        {},
        "token does not belong to its keys",
        "AWS_SESSION_TOKEN",
    ),
    "an unknown key": (403, "InvalidAccessKeyId", "", {}, "does not know AWS_ACCESS_KEY_ID", "AWS_ENDPOINT_URL"),
    "another secret": (403, "SignatureDoesNotMatch", "", {}, "AWS_SECRET_ACCESS_KEY is not that of", "of one pair"),
    "a wrong clock": (403, "RequestTimeTooSkewed", "", {}, "clock of this machine is more than 15 minutes", "NTP"),
    "an archive": (403, "InvalidObjectState", "", {}, "in an archive (Glacier)", "restore-object"),
    "an unpaid account": (403, "AccountProblem", "", {}, "closed, unpaid", "another one"),
    "a key of KMS": (400, "KMS.DisabledException", "", {}, "KMS key", "kms:Decrypt"),
    "another region": (301, "PermanentRedirect", "", _REGION, "is in region eu-central-1", "AWS_REGION: eu-central-1"),
    "a region in the body": (
        400,
        "AuthorizationHeaderMalformed",
        "<Region>eu-west-3</Region>",
        {},
        "is in region eu-west-3",
        "AWS_REGION: eu-west-3",
    ),
    "a region that nobody tells": (301, "PermanentRedirect", "", {}, "in another region", "AWS_REGION"),
}


@pytest.fixture
def environment(monkeypatch):
    for name in sorted(name for name in {*os.environ, *DATA_KEYS} if name.startswith("AWS_")):
        monkeypatch.setenv(name, "")  # what the data's Secret sets is taken back as well
        monkeypatch.delenv(name)
    for prefix in ("", ARTIFACTS_PREFIX):
        monkeypatch.setenv(f"{prefix}AWS_ACCESS_KEY_ID", "key")
        monkeypatch.setenv(f"{prefix}AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    S3FileSystem.clear_instance_cache()
    yield monkeypatch
    S3FileSystem.clear_instance_cache()


@pytest.mark.parametrize("what", SAID)
def test_of_data_it_is_told_with_what_mends_it_and_not_waited_for(what, environment, clock):
    status, code, more, headers, why, step = SAID[what]
    with refusing(status, code, more, headers) as (address, asked):
        environment.setenv("AWS_ENDPOINT_URL", address)
        with pytest.raises(TrainerError) as raised:
            Source(parse_uri("s3://bucket/folder/train.jsonl"), air_gapped=False, patient=True)
    assert raised.value.reason == Reason.ACCESS_DENIED
    assert raised.value.message.startswith("train.jsonl: s3://bucket does not let it be read: ")
    assert why in raised.value.message
    assert step in raised.value.next_step
    assert SECRET not in raised.value.message + raised.value.next_step
    assert asked[0][0] == "HEAD"
    assert clock.now == 0


@pytest.mark.alike
@pytest.mark.parametrize("what", SAID)
@pytest.mark.usefixtures("environment")
def test_of_artifacts_it_is_told_the_same_way(what, clock):
    status, code, more, headers, why, step = SAID[what]
    with refusing(status, code, more, headers) as (address, _), pytest.raises(TrainerError) as raised:
        Store(StoreRef(uri="s3://bucket/tuned", endpoint=address)).put_bytes(b"x", "manifest.json")
    assert raised.value.reason == Reason.ACCESS_DENIED
    assert raised.value.message.startswith("artifacts: s3://bucket does not do what is asked for manifest.json: ")
    assert why in raised.value.message
    assert step in raised.value.next_step
    assert SECRET not in raised.value.message + raised.value.next_step
    assert clock.now == 0


def test_a_name_that_no_bucket_may_have_is_no_matter_of_keys(environment):
    with refusing(400, "InvalidBucketName") as (address, _):
        environment.setenv("AWS_ENDPOINT_URL", address)
        with pytest.raises(TrainerError, match="no bucket may have that name") as raised:
            Source(parse_uri("s3://bucket/train.jsonl"), air_gapped=False)
        assert raised.value.reason == Reason.DATASET_NOT_FOUND
        with pytest.raises(TrainerError, match="no bucket may have that name") as raised:
            Store(StoreRef(uri="s3://bucket/tuned", endpoint=address)).put(Path(__file__), "weights")
        assert raised.value.reason == Reason.ARTIFACT_FAILED


@pytest.mark.parametrize(
    ("variable", "value", "why"),
    [("AWS_REGION", "eu central 1", "not a name of a region"), ("AWS_PROFILE", "none", "a profile that is not there")],
)
def test_what_is_sent_to_nobody_is_not_waited_for(variable, value, why, environment, clock):
    environment.setenv(variable, value)
    with pytest.raises(TrainerError, match=why) as raised:
        Source(parse_uri("s3://bucket/train.jsonl"), air_gapped=False, patient=True)
    assert raised.value.reason == Reason.ACCESS_DENIED
    assert variable in raised.value.message
    assert clock.now == 0


@pytest.mark.parametrize(("status", "code"), [(503, "SlowDown"), (500, "InternalError"), (400, "RequestTimeout")])
def test_what_may_pass_is_still_a_matter_of_time(status, code, environment, clock):
    with refusing(status, code) as (address, _):
        environment.setenv("AWS_ENDPOINT_URL", address)
        with pytest.raises(TrainerError) as raised:
            Source(parse_uri("s3://bucket/train.jsonl"), air_gapped=False, patient=True)
    assert raised.value.reason == Reason.STORE_UNAVAILABLE
    assert clock.now > 0


@pytest.mark.parametrize("region", ["AWS_REGION", "AWS_DEFAULT_REGION"])
def test_the_region_of_either_variable_is_the_one_that_requests_are_signed_for(region, environment):
    environment.setenv(region, "eu-south-2")
    with refusing(403, "AccessDenied") as (address, asked):
        environment.setenv("AWS_ENDPOINT_URL", address)
        with pytest.raises(TrainerError):
            Source(parse_uri("s3://bucket/train.jsonl"), air_gapped=False)
    assert {"/eu-south-2/s3/aws4_request" in signed for _, signed in asked} == {True}


@pytest.mark.parametrize(("given", "signed_for"), [("AWS_DEFAULT_REGION", "eu-south-2"), ("AWS_REGION", "eu-south-2")])
def test_the_region_of_the_datas_secret_goes_before_that_of_the_pods_identity(given, signed_for, environment):
    environment.setenv("AWS_REGION", "us-west-2")
    environment.setenv("AWS_DEFAULT_REGION", "us-west-2")
    environment.setenv(f"{DATA_PREFIX}{given}", "eu-south-2")
    take_data_keys(os.environ)
    with refusing(403, "AccessDenied") as (address, asked):
        environment.setenv("AWS_ENDPOINT_URL", address)
        with pytest.raises(TrainerError):
            Source(parse_uri("s3://bucket/train.jsonl"), air_gapped=False)
    assert f"/{signed_for}/s3/" in asked[0][1]


def test_artifacts_do_not_go_where_the_data_are(environment):
    """AWS_ENDPOINT_URL of the data's Secret is of the data: artifacts have an endpointURL of their own."""
    with refusing(403, "AccessDenied") as (of_data, asked):
        for name, value in {"AWS_ENDPOINT_URL": of_data, "AWS_REGION": "eu-south-2"}.items():
            environment.setenv(f"{DATA_PREFIX}{name}", value)
        take_data_keys(os.environ)
        client = connect(parse_artifact_uri("s3://bucket/tuned"), None).files
        client.connect()
        assert client._s3.meta.endpoint_url == "https://s3.amazonaws.com"
        assert client._s3.meta.region_name == "us-east-1"
    assert asked == []


def test_a_bucket_whose_readers_pay_is_read_with_the_key_that_says_so(environment):
    """S3 refuses others as it refuses whoever has no right: its answer does not tell which it is."""
    with refusing(403, "AccessDenied") as (address, asked):
        environment.setenv("AWS_ENDPOINT_URL", address)
        with pytest.raises(TrainerError) as raised:
            Source(parse_uri("s3://bucket/train.jsonl"), air_gapped=False)
        assert "AWS_REQUEST_PAYER: requester" in raised.value.next_step
        assert not [signed for _, signed in asked if "x-amz-request-payer" in signed]
        asked.clear()
        environment.setenv(f"{DATA_PREFIX}AWS_REQUEST_PAYER", "requester\n")
        take_data_keys(os.environ)
        with pytest.raises(TrainerError) as raised:
            Source(parse_uri("s3://bucket/train.jsonl"), air_gapped=False)
        assert "AWS_REQUEST_PAYER" not in raised.value.next_step
        assert {"x-amz-request-payer" in signed for _, signed in asked} == {True}
