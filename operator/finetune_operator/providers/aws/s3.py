"""A place in S3 as an AWS connection has it: objects by their names below its prefix, written as they come.

A file is passed on in parts, of which one is held at a time, and is there when its last part is, or not at all.
"""

from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from finetune_api.aws import S3Location
from finetune_api.reasons import Reason
from finetune_operator.providers.aws.client import Aws
from finetune_operator.providers.aws.refusals import STORE, translated
from finetune_operator.providers.errors import (
    Contested,
    NotThere,
    ProviderError,
    TryLater,
    Unknown,
    Unreadable,
    looks_like_page,
)

PART_BYTES = 8 * 1024 * 1024
"""S3 takes parts from 5 MiB on, and 10,000 of them: files of up to 80 GB."""

DELETE_AT_ONCE = 1000


@dataclass(frozen=True)
class S3Object:
    """An object."""

    name: str
    """Its key without the place's prefix."""
    bytes: int


class Bucket:
    """Objects of one place. All of it raises ProviderError's children."""

    def __init__(self, aws: Aws, place: S3Location) -> None:
        self._aws = aws
        self._bucket = place.bucket
        self._prefix = f"{place.prefix}/" if place.prefix else ""

    def uri(self, name: str) -> str:
        """The s3:// URI of an object, or of a folder."""
        return f"s3://{self._bucket}/{self._prefix}{name}"

    def name_of(self, uri: str) -> str | None:
        """The name of what a URI means, where it is of this place."""
        begins = self.uri("")
        return uri.removeprefix(begins) if uri.startswith(begins) else None

    async def check(self) -> None:
        """Whether the bucket is there, and may be used; free of charge but for the request."""
        try:
            await self._aws.call(STORE, "head_bucket", Bucket=self._bucket)
        except NotThere:
            message = f"the connection's S3 bucket {self._bucket} does not exist"
            raise TryLater(Reason.BUCKET_NOT_FOUND, message, 60.0) from None

    async def objects(self, begins: str) -> list[S3Object]:
        """Objects whose names begin so, in the order of their names."""
        found = await self._aws.pages(
            STORE, "list_objects_v2", "Contents", Bucket=self._bucket, Prefix=self._prefix + begins
        )
        return [S3Object(one["Key"].removeprefix(self._prefix), one["Size"]) for one in found]

    async def look(self, name: str) -> S3Object:
        """One object.

        Raises:
            NotThere: there is none.
        """
        found = await self._aws.call(STORE, "head_object", **self._at(name))
        return S3Object(name, found["ContentLength"])

    async def read(self, name: str, limit: int) -> bytes:
        """The content, as far as `limit` bytes. None that is read here is a page for people.

        Raises:
            NotThere: there is none.
            Unreadable: a proxy answers, whose page would be taken for a report that has gone bad.
        """

        def read(client: Any) -> bytes:
            with client.get_object(**self._at(name))["Body"] as body:
                return bytes(body.read(limit))

        content = await self._aws.run(STORE, read, size=limit)
        if looks_like_page(content):
            raise Unreadable(f"s3 answers with a web page in the place of {name}")
        return content

    async def write(self, name: str, body: AsyncIterator[bytes]) -> None:
        """Pass an object on as it comes. One that broke off is not there, and costs nothing."""
        parts = in_parts(body, PART_BYTES)
        first = await anext(parts, b"")
        second = await anext(parts, None)
        if second is None:
            await self._aws.call(STORE, "put_object", Body=first, **self._at(name))
            return
        made = await self._aws.call(STORE, "create_multipart_upload", **self._at(name))
        upload = {**self._at(name), "UploadId": made["UploadId"]}
        try:
            tags = [await self._part(upload, 1, first), await self._part(upload, 2, second)]
            async for part in parts:
                tags.append(await self._part(upload, len(tags) + 1, part))
            await self._aws.call(STORE, "complete_multipart_upload", MultipartUpload={"Parts": tags}, **upload)
        except BaseException:
            with suppress(ProviderError):  # `end_uploads` ends what is left
                await self._aws.call(STORE, "abort_multipart_upload", **upload)
            raise

    async def delete(self, name: str) -> None:
        """Delete an object; one that is not there is no error."""
        await self._aws.call(STORE, "delete_object", **self._at(name))

    async def delete_all(self, begins: str) -> None:
        """Delete everything whose name begins so, also parts of uploads that were never ended."""
        await self.end_uploads(begins)
        keys = [{"Key": self._prefix + one.name} for one in await self.objects(begins)]
        for start in range(0, len(keys), DELETE_AT_ONCE):
            await self._delete_keys(keys[start : start + DELETE_AT_ONCE])

    async def end_uploads(self, begins: str) -> None:
        """Give up uploads of objects whose names begin so: their parts are billed, and no list of objects has them."""
        if not begins:
            raise ValueError("the whole place is nobody's to delete")
        found = await self._aws.pages(
            STORE, "list_multipart_uploads", "Uploads", Bucket=self._bucket, Prefix=self._prefix + begins
        )
        for one in found:
            upload = {"Bucket": self._bucket, "Key": one["Key"], "UploadId": one["UploadId"]}
            with suppress(NotThere):
                await self._aws.call(STORE, "abort_multipart_upload", **upload)

    async def _delete_keys(self, keys: list[dict[str, str]]) -> None:
        """One call that says of each key what became of it: what it says of the first that stays counts for all."""
        asked = {"Objects": keys, "Quiet": True}
        answer = await self._aws.call(STORE, "delete_objects", Bucket=self._bucket, Delete=asked)
        refused = answer.get("Errors") or []
        if refused:
            told = {"Error": refused[0], "ResponseMetadata": {"HTTPStatusCode": 500}}
            error = translated(ClientError(told, "DeleteObjects"), STORE)
            raise Contested(error.reason, error.message) if isinstance(error, Unknown) else error

    async def _part(self, upload: dict[str, Any], number: int, content: bytes) -> dict[str, Any]:
        made = await self._aws.call(STORE, "upload_part", PartNumber=number, Body=content, **upload)
        return {"PartNumber": number, "ETag": made["ETag"]}

    def _at(self, name: str) -> dict[str, Any]:
        return {"Bucket": self._bucket, "Key": self._prefix + name}


async def in_parts(body: AsyncIterator[bytes], size: int) -> AsyncIterator[bytes]:
    """The body in parts of `size` bytes, the last one shorter. Holds one part, and a chunk."""
    part = bytearray()
    async for chunk in body:
        view = memoryview(chunk)
        while view:
            room = size - len(part)
            part += view[:room]
            view = view[room:]
            if len(part) == size:
                yield bytes(part)
                part.clear()
    if part:
        yield bytes(part)


def place_of(uri: str) -> tuple[S3Location, str]:
    """The bucket of an s3:// URI as a place, and the key: for what another place than the connection's holds."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return S3Location(bucket=bucket), key
