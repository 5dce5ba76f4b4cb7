"""The objects that a service reads and writes for its user, in the test's S3."""

from functools import cache
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.simulators.aws.settings import AwsSettings


@cache
def client(endpoint: str | None, region: str) -> Any:
    """A client with the service's own credentials."""
    return boto3.client(
        "s3", endpoint_url=endpoint, region_name=region, aws_access_key_id="service", aws_secret_access_key="service",
        config=Config(retries={"max_attempts": 0}),
    )  # fmt: skip


class MissingError(Exception):
    """A bucket or object does not exist."""


class S3:
    """Reads and writes by URI."""

    def __init__(self, settings: AwsSettings) -> None:
        self._settings = settings

    def _client(self) -> Any:
        return client(self._settings.s3_endpoint, self._settings.region)

    def read(self, uri: str) -> bytes:
        """An object's content.

        Raises:
            MissingError: there is none.
        """
        bucket, key = place(uri)
        try:
            content: bytes = self._client().get_object(Bucket=bucket, Key=key)["Body"].read()
        except ClientError as error:
            raise MissingError(f"{uri}: {error.response['Error']['Code']}") from error
        return content

    def has(self, uri: str) -> bool:
        """Whether there is an object under a prefix."""
        bucket, key = place(uri)
        try:
            found = self._client().list_objects_v2(Bucket=bucket, Prefix=key, MaxKeys=1)
        except ClientError:
            return False
        return bool(found.get("KeyCount"))

    def look(self, uri: str) -> None:
        """Check that the bucket exists.

        Raises:
            MissingError: it is not.
        """
        try:
            self._client().head_bucket(Bucket=place(uri)[0])
        except ClientError as error:
            raise MissingError(f"{uri}: {error.response['Error']['Code']}") from error

    def write(self, uri: str, content: bytes) -> None:
        """Write an object.

        Raises:
            MissingError: there is no such bucket.
        """
        bucket, key = place(uri)
        try:
            self._client().put_object(Bucket=bucket, Key=key, Body=content)
        except ClientError as error:
            raise MissingError(f"{uri}: {error.response['Error']['Code']}") from error


def place(uri: str) -> tuple[str, str]:
    """Bucket and key of a URI."""
    parts = urlsplit(uri)
    return parts.netloc, parts.path.lstrip("/")
