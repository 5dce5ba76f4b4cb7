"""S3 over boto3 and moto's server: nothing half written, nothing left; and what AWS's refusals become."""

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import botocore.session
import pytest
from botocore import exceptions as boto
from botocore.credentials import DeferredRefreshableCredentials

from finetune_api import RELEASE
from finetune_api.aws import S3Location
from finetune_api.reasons import Reason
from finetune_operator.providers.aws import s3
from finetune_operator.providers.aws.client import Aws, session_of
from finetune_operator.providers.aws.refusals import NoBucket, translated
from finetune_operator.providers.aws.s3 import Bucket, in_parts, place_of
from finetune_operator.providers.bedrock.api import BedrockApi
from finetune_operator.providers.calls.errors import Contested, Denied, NotThere, Refused, TryLater, Unknown
from finetune_operator.providers.calls.rate_limit import RateLimiter
from finetune_operator.providers.sagemaker.api import SageMakerApi
from finetune_operator.runtime.errors import LeadershipLost
from tests.simulators.conftest import s3_endpoint

__all__ = ["s3_endpoint"]

KEYS = {"accessKeyID": "AKIASIMULATED", "secretAccessKey": "simulated-secret"}
BY_SECRET = SimpleNamespace(secret_ref="aws")
BY_POD = SimpleNamespace(secret_ref=None)
MIB = 1024 * 1024


@pytest.mark.parametrize(
    ("environment", "trusted"),
    [
        ({}, None),
        ({"SSL_CERT_FILE": "/ours.pem"}, "/ours.pem"),
        ({"SSL_CERT_FILE": "/ours.pem", "AWS_CA_BUNDLE": "/of-aws.pem"}, "/of-aws.pem"),
    ],
    ids=str,
)
def test_the_authorities_that_all_else_trusts_are_trusted_at_aws_too(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], trusted: str | None
) -> None:
    for name in ("SSL_CERT_FILE", "AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert session_of(BY_SECRET, KEYS, "us-east-1").get_config_variable("ca_bundle") == trusted


@pytest.fixture(scope="module")
def aws(s3_endpoint: str) -> Iterator[Aws]:
    made = Aws(session_of(BY_SECRET, KEYS, "us-east-1"), {"s3": s3_endpoint})
    yield made
    made._threads.shutdown()


@pytest.fixture
async def bucket(aws: Aws, request: pytest.FixtureRequest) -> Bucket:
    name = request.node.name.partition("[")[0].replace("_", "-")[:60].strip("-")
    await aws.call("s3", "create_bucket", Bucket=name)
    return Bucket(aws, S3Location(bucket=name, prefix="team/tuning"))


async def test_requests_say_who_asks(aws: Aws) -> None:
    """CloudTrail shows it beside each call."""
    sent: list[Any] = []

    def see(request: Any, **_: Any) -> None:
        sent.append(request.headers["User-Agent"])

    await aws.run("s3", lambda client: client.meta.events.register("before-send", see))
    await aws.call("s3", "create_bucket", Bucket="asked-by-whom")
    await aws.run("s3", lambda client: client.meta.events.unregister("before-send", see))
    assert sent[0].decode().startswith(f"finetune-operator/{RELEASE} Botocore/")


async def test_a_replica_that_loses_its_lease_while_credentials_are_renewed_has_nothing_made(
    aws: Aws, s3_endpoint: str
) -> None:
    leads = True

    def renew() -> dict[str, str]:
        nonlocal leads
        leads = False
        expires = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
        return {"access_key": "AKIASIMULATED", "secret_key": "simulated", "token": "x", "expiry_time": expires}

    def guard() -> None:
        if not leads:
            raise LeadershipLost("another one leads")

    session = session_of(BY_SECRET, KEYS, "us-east-1")
    session._credentials = DeferredRefreshableCredentials(renew, "simulated")
    late = Aws(session, {"s3": s3_endpoint})
    late.use_limiter(RateLimiter(guard=guard))
    with pytest.raises(LeadershipLost):
        await late.call("s3", "create_bucket", Bucket="made-too-late")
    assert not leads
    await late.close()
    with pytest.raises(NotThere):
        await aws.call("s3", "head_bucket", Bucket="made-too-late")


@pytest.mark.parametrize("size", [10, 1])
async def test_a_page_of_a_list_takes_one_turn(aws: Aws, bucket: Bucket, monkeypatch: Any, size: int) -> None:
    for name in ("a", "b"):
        await bucket.write(f"of-{size}/{name}", chunks(b"x"))
    turns: list[str] = []
    run = aws.run
    monkeypatch.setattr(aws, "run", lambda service, do: turns.append(service) or run(service, do))
    page = {"Bucket": bucket._bucket, "Prefix": f"{bucket._prefix}of-{size}/", "PaginationConfig": {"PageSize": size}}
    found = await aws.pages("s3", "list_objects_v2", "Contents", **page)
    assert (len(found), len(turns)) == (2, 2 // size or 1)


@pytest.mark.parametrize("make", [BedrockApi, SageMakerApi])
async def test_what_was_in_a_bucket_that_is_gone_is_gone_and_in_one_of_another_region_it_is_not(
    monkeypatch: pytest.MonkeyPatch, make: Any
) -> None:
    code = ""

    async def pages(*_: Any, **__: Any) -> None:
        raise translated(refusal(code, 404), "s3")

    monkeypatch.setattr(Aws, "pages", pages)
    place = SimpleNamespace(
        credentials=BY_SECRET, region="us-east-1", endpoints=None, results="Delete", s3=S3Location(bucket="tuning")
    )
    api = make(place, KEYS)
    code = "NoSuchBucket"
    await api.end_uploads("finetune-1-")
    assert await api.files("finetune-1-") == []
    code = "PermanentRedirect"
    for ask in (api.end_uploads, api.files):
        with pytest.raises(TryLater):
            await ask("finetune-1-")
    await api.close()


async def chunks(content: bytes, size: int = MIB // 2, fails: bool = False) -> AsyncIterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]
    if fails:
        raise ConnectionError("the sender is gone")


async def uploads(aws: Aws, bucket: Bucket) -> list[dict[str, Any]]:
    return await aws.pages("s3", "list_multipart_uploads", "Uploads", Bucket=bucket._bucket)


@pytest.mark.parametrize("size", [0, 1, 8 * MIB, 8 * MIB + 1, 17 * MIB])
async def test_what_is_written_is_read_whatever_its_size(bucket: Bucket, aws: Aws, size: int) -> None:
    content = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    await bucket.write(f"file-{size}", chunks(content))
    assert (await bucket.head(f"file-{size}")).bytes == size
    assert await bucket.read(f"file-{size}", size + 1) == content
    assert await uploads(aws, bucket) == []


async def test_a_body_is_cut_into_parts_whatever_its_chunks() -> None:
    parts = [part async for part in in_parts(chunks(b"abcdefghij", 3), 4)]
    assert parts == [b"abcd", b"efgh", b"ij"]


async def test_at_most_two_parts_are_held_while_a_file_passes(bucket: Bucket, monkeypatch: Any) -> None:
    ahead: list[int] = []
    given = sent = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal given
        for _ in range(64):
            given += MIB
            ahead.append(given - sent)
            yield b"x" * MIB

    async def part(_: dict[str, Any], number: int, content: bytes) -> dict[str, Any]:
        nonlocal sent
        sent += len(content)
        return {"PartNumber": number, "ETag": "x"}

    async def call(*_: Any, **__: Any) -> dict[str, Any]:
        return {"UploadId": "1"}

    monkeypatch.setattr(bucket, "_part", part)
    monkeypatch.setattr(bucket, "_aws", SimpleNamespace(call=call))
    await bucket.write("large", body())
    assert (sent, max(ahead) <= 2 * s3.PART_BYTES + MIB) == (64 * MIB, True)


@pytest.mark.parametrize("size", [MIB, 9 * MIB, 17 * MIB])
async def test_a_sender_that_breaks_off_leaves_neither_an_object_nor_parts(bucket: Bucket, aws: Aws, size: int) -> None:
    with pytest.raises(ConnectionError):
        await bucket.write("half", chunks(b"x" * size, fails=True))
    with pytest.raises(NotThere):
        await bucket.head("half")
    assert await uploads(aws, bucket) == []


async def test_names_are_below_the_prefix_and_deleted_by_their_beginning(bucket: Bucket, aws: Aws) -> None:
    for name in ("job-1-train", "job-1/out/metrics", "job-2-train"):
        await bucket.write(name, chunks(b"x"))
    assert [one.name for one in await bucket.objects("job-1")] == ["job-1-train", "job-1/out/metrics"]
    assert bucket.uri("job-1-train") == f"s3://{bucket._bucket}/team/tuning/job-1-train"
    at = {"Bucket": bucket._bucket, "Key": "team/tuning/job-1-never-ended"}
    await aws.call("s3", "create_multipart_upload", **at)
    await bucket.delete_all("job-1")
    await bucket.delete("job-1-train")
    assert [one.name for one in await bucket.objects("")] == ["job-2-train"]
    assert await uploads(aws, bucket) == []


@pytest.mark.parametrize(
    ("code", "kind", "reason"),
    [
        # Neither has all that the connection does wait.
        ("AccessDenied", Denied, Reason.CREDENTIALS_INVALID),
        ("InternalError", Contested, Reason.PROVIDER_UNAVAILABLE),
        ("SlowDown", TryLater, Reason.RATE_LIMITED),
    ],
)
async def test_objects_that_stay_are_told_by_what_s3_says_of_them(
    bucket: Bucket, aws: Aws, monkeypatch: Any, code: str, kind: type, reason: Reason
) -> None:
    """A good answer, with a no to single keys in it."""
    await bucket.write("job-1-train", chunks(b"x"))
    call = aws.call

    async def refusing(service: str, operation: str, **asked: Any) -> dict[str, Any]:
        if operation != "delete_objects":
            return await call(service, operation, **asked)
        refused = {"Key": asked["Delete"]["Objects"][0]["Key"], "Code": code, "Message": "no"}
        return {"Errors": [refused], "ResponseMetadata": {"HTTPStatusCode": 200}}

    monkeypatch.setattr(aws, "call", refusing)
    with pytest.raises(kind) as caught:
        await bucket.delete_all("job-1")
    assert (type(caught.value), caught.value.reason) == (kind, reason)


async def test_a_whole_place_is_never_deleted(bucket: Bucket) -> None:
    with pytest.raises(ValueError, match="nobody's"):
        await bucket.delete_all("")


async def test_a_bucket_that_is_missing_is_said(aws: Aws, bucket: Bucket) -> None:
    await bucket.check()
    missing = Bucket(aws, S3Location(bucket="nowhere-at-all"))
    for ask in (missing.check(), missing.objects("x"), missing.write("x", chunks(b"x"))):
        with pytest.raises(TryLater) as caught:
            await ask
        assert caught.value.reason == Reason.BUCKET_NOT_FOUND


def test_a_uri_of_another_place_is_taken_apart() -> None:
    place, key = place_of("s3://elsewhere/a/b.csv")
    assert (place.bucket, place.prefix, key) == ("elsewhere", None, "a/b.csv")


def refusal(code: str, status: int = 400, message: str = "no", operation: str = "CreateThing") -> boto.ClientError:
    answer: Any = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return boto.ClientError(answer, operation)


INVALID = "The provided model identifier is invalid."


def by_role(code: str, status: int = 400) -> boto.ClientError:
    """Of STS, asked by the SDK before anything else."""
    answer: Any = {"Error": {"Code": code, "Message": "no"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return boto.ClientError(answer, "AssumeRoleWithWebIdentity")


UNASSUMABLE = "Could not assume provided IAM role."
NOT_PASSED = "not authorized to perform: iam:PassRole"
POD = "User: arn:aws:sts::123456789012:assumed-role/pod/x is not authorized to perform: bedrock:CreateThing"
NO_INSTANCES = "The account-level service limit 'ml.g5.xlarge for endpoint usage' is 0 Instances"
NO_OBJECTS = (
    "No S3 objects found under S3 URL s3://tuning/a given in input data source. Please ensure that the bucket exists "
    "in the selected region (us-east-1), that objects exist under that S3 prefix, and that the role may list them."
)
ELSEWHERE = "The bucket tuning is in another region than the job (us-west-2)."
NO_KMS = "User: x is not authorized to perform: kms:GenerateDataKey on resource: y"
REFUSALS = {
    "keys": (refusal("UnrecognizedClientException", 403), TryLater, Reason.CREDENTIALS_INVALID),
    "signature": (refusal("SignatureDoesNotMatch", 403), TryLater, Reason.CREDENTIALS_INVALID),
    "rights": (refusal("AccessDeniedException", 403, POD), Denied, Reason.CREDENTIALS_INVALID),
    "role": (refusal("ValidationException", message=UNASSUMABLE), TryLater, Reason.ROLE_NOT_USABLE),
    "pass role": (refusal("AccessDeniedException", 403, NOT_PASSED), TryLater, Reason.ROLE_NOT_USABLE),
    "bucket": (refusal("NoSuchBucket", 404), NoBucket, Reason.BUCKET_NOT_FOUND),
    "throttled": (refusal("ThrottlingException", 429), TryLater, Reason.RATE_LIMITED),
    "throttled by a list": (refusal("TooManyRequestsException", 429), TryLater, Reason.RATE_LIMITED),
    "model too slow": (refusal("ModelTimeoutException", 408), Unknown, Reason.PROVIDER_UNAVAILABLE),
    "model broken": (refusal("ModelErrorException", 424), Unknown, Reason.PROVIDER_UNAVAILABLE),
    "container broken": (refusal("ModelError", 424), Unknown, Reason.PROVIDER_UNAVAILABLE),
    "a service behind it": (refusal("InternalDependencyException", 530), Unknown, Reason.PROVIDER_UNAVAILABLE),
    "instances": (refusal("ResourceLimitExceeded", message=NO_INSTANCES), TryLater, Reason.QUOTA_EXCEEDED),
    "data gone": (refusal("ValidationException", message=NO_OBJECTS), Refused, Reason.PROVIDER_REFUSED),
    "bucket elsewhere": (refusal("ValidationException", message=ELSEWHERE), TryLater, Reason.BUCKET_NOT_FOUND),
    "keys of KMS": (refusal("AccessDenied", 403, NO_KMS), Denied, Reason.CREDENTIALS_INVALID),
    "too many tags": (refusal("TooManyTagsException"), Refused, Reason.PROVIDER_REFUSED),
    "in use": (refusal("ResourceInUseException"), TryLater, Reason.PROVIDER_BUSY),
    "not ready": (refusal("ModelNotReadyException", 429), TryLater, Reason.RATE_LIMITED),
    "quota": (refusal("ServiceQuotaExceededException"), TryLater, Reason.QUOTA_EXCEEDED),
    "absent": (refusal("ResourceNotFoundException", 404), NotThere, Reason.PROVIDER_REFUSED),
    "absent, in words": (
        refusal("ValidationException", message=INVALID, operation="DeleteThing"),
        NotThere,
        Reason.PROVIDER_REFUSED,
    ),
    "a wish for what is not there": (refusal("ValidationException", message=INVALID), Refused, Reason.PROVIDER_REFUSED),
    "absent, by a region": (refusal("UnknownOperationException", 404), NotThere, Reason.PROVIDER_REFUSED),
    "conflict": (refusal("ConflictException"), TryLater, Reason.PROVIDER_BUSY),
    "clock": (refusal("RequestTimeTooSkewed", 403), TryLater, Reason.PROVIDER_UNAVAILABLE),
    "late signature": (
        refusal("InvalidSignatureException", 403, "Signature expired: 20261121T1200Z is now earlier than"),
        TryLater,
        Reason.PROVIDER_UNAVAILABLE,
    ),
    "session over": (refusal("ExpiredTokenException", 403), TryLater, Reason.CREDENTIALS_INVALID),
    "another no to the identity": (refusal("AllAccessDisabled", 403), Denied, Reason.CREDENTIALS_INVALID),
    "encryption denied": (refusal("KMS.DisabledException"), Denied, Reason.CREDENTIALS_INVALID),
    "throttled with 403": (refusal("RequestLimitExceeded", 403), TryLater, Reason.RATE_LIMITED),
    "a proxy that asks who asks": (refusal("407", 407), Unknown, Reason.PROVIDER_UNAVAILABLE),
    "body too slow": (refusal("RequestTimeout"), Unknown, Reason.PROVIDER_UNAVAILABLE),
    "pod's token": (refusal("InvalidIdentityToken"), TryLater, Reason.CREDENTIALS_INVALID),
    "pod's role": (by_role("ValidationError"), TryLater, Reason.CREDENTIALS_INVALID),
    "pod's role throttled": (by_role("Throttling"), TryLater, Reason.RATE_LIMITED),
    "pod's role denied": (by_role("AccessDenied", 403), Denied, Reason.CREDENTIALS_INVALID),
    "pod's issuer away": (by_role("IDPCommunicationError"), Unknown, Reason.PROVIDER_UNAVAILABLE),
    "wrong": (refusal("ValidationException"), Refused, Reason.PROVIDER_REFUSED),
    "broken": (refusal("InternalServerException", 500), Unknown, Reason.PROVIDER_UNAVAILABLE),
    "silent": (boto.ReadTimeoutError(endpoint_url="http://x"), Unknown, Reason.PROVIDER_UNAVAILABLE),
    "cut": (boto.ConnectionClosedError(endpoint_url="http://x"), Unknown, Reason.PROVIDER_UNAVAILABLE),
    "no identity": (boto.NoCredentialsError(), TryLater, Reason.CREDENTIALS_INVALID),
    "wrong words": (boto.ParamValidationError(report="x"), Refused, Reason.PROVIDER_REFUSED),
}  # fmt: skip


@pytest.mark.parametrize(("headers", "pause"), [({"retry-after": "7"}, 7.0), ({}, 30.0)])
def test_a_pause_is_as_long_as_aws_asks_for(headers: dict[str, str], pause: float) -> None:
    error = refusal("ThrottlingException", 400)
    error.response["ResponseMetadata"]["HTTPHeaders"] = headers
    assert translated(error, "bedrock").retry_after == pause


@pytest.mark.parametrize(("error", "kind", "reason"), REFUSALS.values(), ids=REFUSALS)
def test_every_refusal_is_one_of_ours(error: Any, kind: type, reason: Reason) -> None:
    found = translated(error, "bedrock")
    assert (type(found), found.reason) == (kind, reason)
    assert found.failure().next_step


def test_a_pod_without_an_identity_is_told_to_get_one_and_not_to_renew_a_secret_that_it_does_not_have() -> None:
    step = str(translated(boto.NoCredentialsError(), "bedrock").failure().next_step)
    assert ("serviceAccount.annotations" in step, "renew" in step) == (True, False)


def test_data_that_are_gone_are_brought_again() -> None:
    found = translated(refusal("ValidationException", message=NO_OBJECTS), "sagemaker").failure()
    assert "spec.retryNonce" in str(found.next_step)


@pytest.mark.parametrize("code", ["PermanentRedirect", "301", "AuthorizationHeaderMalformed"])
def test_a_bucket_in_another_region_is_said_and_waited_for(code: str) -> None:
    found = translated(refusal(code, 301), "s3")
    assert (type(found), found.reason, "another region" in found.message) == (TryLater, Reason.BUCKET_NOT_FOUND, True)


def test_words_about_a_signature_are_kept_away() -> None:
    assert "canonical" not in translated(refusal("SignatureDoesNotMatch", 403, "canonical string"), "s3").message


def test_a_pod_signs_with_its_own_identity_and_nobody_elses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAOFSOMEBODY")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "of-somebody")
    assert session_of(BY_POD, {}, "us-east-1").get_credentials() is None
    signed = session_of(BY_SECRET, KEYS, "us-east-1").get_credentials()
    assert signed is not None
    assert signed.access_key == "AKIASIMULATED"
    assert botocore.session.get_session().get_credentials().access_key == "AKIAOFSOMEBODY"


@pytest.mark.parametrize("endpoint", ["https://a_b.example.com", "https://a..b"])
async def test_an_endpoint_that_no_client_can_be_made_for_is_named_and_not_taken_for_an_odd_answer(
    endpoint: str,
) -> None:
    made = Aws(session_of(BY_SECRET, KEYS, "us-east-1"), {"sts": endpoint})
    with pytest.raises(TryLater, match="can be no host's address") as refused:
        await made.call("sts", "get_caller_identity")
    assert endpoint in refused.value.message
    assert "LLMConnection's endpoints" in str(refused.value.next_step)
    await made.close()
