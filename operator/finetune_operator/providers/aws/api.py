"""What the APIs of AWS's services have in common: one connection's calls, and its place in S3, where data go."""

from collections.abc import AsyncIterator
from contextlib import suppress

from finetune_api.aws import S3Location
from finetune_operator.providers.aws.client import Aws
from finetune_operator.providers.aws.refusals import NoBucket
from finetune_operator.providers.aws.s3 import Bucket, S3Object
from finetune_operator.providers.ports import RemoteFile
from finetune_operator.providers.rate_limit import Pace


class AwsApi:
    """The part of a FineTuningApi that is the same. A file's name is its ID: the connection says where it is.

    Args:
        aws: calls on the services.
        place: the connection's in S3.
    """

    def __init__(self, aws: Aws, place: S3Location) -> None:
        self._aws = aws
        self._bucket = Bucket(aws, place)

    async def close(self) -> None:
        """Close the connections."""
        await self._aws.close()

    def keep_pace(self, pace: Pace) -> None:
        """Each request waits, but for S3's."""
        self._aws.keep_pace(pace)

    async def account(self) -> str | None:
        """As STS tells it."""
        return await self._aws.account()

    async def upload(self, name: str, size: int, body: AsyncIterator[bytes]) -> RemoteFile:
        """To S3, in parts."""
        await self._bucket.write(name, body)
        return RemoteFile(name, name, size)

    async def file(self, file_id: str) -> RemoteFile:
        """An object."""
        return RemoteFile(file_id, file_id, (await self._bucket.look(file_id)).bytes)

    async def end_uploads(self, prefix: str) -> None:
        """Give up uploads that were never ended: S3 bills for their parts. None are left of a bucket that is gone."""
        with suppress(NoBucket):
            await self._bucket.end_uploads(prefix)

    async def _objects(self, prefix: str) -> list[S3Object]:
        """What there is below the connection's place: with a bucket that is gone went all that was in it."""
        try:
            return await self._bucket.objects(prefix)
        except NoBucket:
            return []
