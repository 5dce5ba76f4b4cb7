"""Shared part of the AWS providers' APIs: one connection's calls, and its S3 location for data."""

from collections.abc import AsyncIterator
from contextlib import suppress

from finetune_api.aws import S3Location
from finetune_operator.providers.aws.client import Aws
from finetune_operator.providers.aws.refusals import NoBucket
from finetune_operator.providers.aws.s3 import Bucket, S3Object
from finetune_operator.providers.calls.rate_limit import RateLimiter
from finetune_operator.providers.ports import RemoteFile


class AwsApi:
    """The shared part of a FineTuningApi. A file's name is its ID, relative to the connection's S3 location.

    Args:
        aws: calls to the services.
        place: the connection's S3 location.
    """

    def __init__(self, aws: Aws, place: S3Location) -> None:
        self._aws = aws
        self._bucket = Bucket(aws, place)

    async def close(self) -> None:
        """Close the connections."""
        await self._aws.close()

    def use_limiter(self, limiter: RateLimiter) -> None:
        """Each request waits for the rate limiter, except S3's."""
        self._aws.use_limiter(limiter)

    async def account(self) -> str | None:
        """The account by STS."""
        return await self._aws.account()

    async def upload(self, name: str, size: int, body: AsyncIterator[bytes]) -> RemoteFile:
        """Upload to S3, in parts."""
        await self._bucket.write(name, body)
        return RemoteFile(name, name, size)

    async def file(self, file_id: str) -> RemoteFile:
        """HEAD of an object."""
        return RemoteFile(file_id, file_id, (await self._bucket.head(file_id)).bytes)

    async def end_uploads(self, prefix: str) -> None:
        """Abort incomplete uploads, since S3 bills for their parts. A deleted bucket has none."""
        with suppress(NoBucket):
            await self._bucket.end_uploads(prefix)

    async def _objects(self, prefix: str) -> list[S3Object]:
        """Objects in the connection's S3 location; empty if the bucket was deleted."""
        try:
            return await self._bucket.objects(prefix)
        except NoBucket:
            return []
