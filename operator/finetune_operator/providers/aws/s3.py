"""An AWS connection's S3 location: objects by name below its prefix, written as streams.

A file is uploaded in parts, of which one is buffered at a time, and appears once all are uploaded, or not at all.
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
from finetune_operator.providers.calls.errors import (
    Contested,
    NotThere,
    ProviderError,
    TryLater,
    Unknown,
    Unreadable,
    is_html,
)

PART_BYTES = 8 * 1024 * 1024
"""S3 accepts parts of at least 5 MiB, and 10,000 of them: this allows files of up to 80 GB."""

DELETE_AT_ONCE = 1000


@dataclass(frozen=True)
class S3Object:
    """An object."""

    name: str
    """Its key without the place's prefix."""
    bytes: int


class Bucket:
    """Objects of one S3 location. Every method raises subclasses of ProviderError."""

    def __init__(self, aws: Aws, place: S3Location) -> None:
        self._aws = aws
        self._bucket = place.bucket
        self._prefix = f"{place.prefix}/" if place.prefix else ""

    def uri(self, name: str) -> str:
        """The s3:// URI of an object, or of a folder."""
        return f"s3://{self._bucket}/{self._prefix}{name}"

    def name_of(self, uri: str) -> str | None:
        """The name of the object at a URI; None if it is in another location."""
        begins = self.uri("")
        return uri.removeprefix(begins) if uri.startswith(begins) else None

    async def check(self) -> None:
        """Raise if the bucket does not exist or may not be used; costs only the request."""
        try:
            await self._aws.call(STORE, "head_bucket", Bucket=self._bucket)
        except NotThere:
            message = f"the connection's S3 bucket {self._bucket} does not exist"
            raise TryLater(Reason.BUCKET_NOT_FOUND, message, 60.0) from None

    async def objects(self, begins: str) -> list[S3Object]:
        """Objects with this prefix, sorted by name."""
        found = await self._aws.pages(
            STORE, "list_objects_v2", "Contents", Bucket=self._bucket, Prefix=self._prefix + begins
        )
        return [S3Object(one["Key"].removeprefix(self._prefix), one["Size"]) for one in found]

    async def head(self, name: str) -> S3Object:
        """HEAD of one object.

        Raises:
            NotThere: it does not exist.
        """
        found = await self._aws.call(STORE, "head_object", **self._at(name))
        return S3Object(name, found["ContentLength"])

    async def read(self, name: str, limit: int) -> bytes:
        """The content, up to `limit` bytes; never a web page.

        Raises:
            NotThere: it does not exist.
            Unreadable: a proxy's page, which would otherwise be taken for a corrupt report.
        """

        def read(client: Any) -> bytes:
            with client.get_object(**self._at(name))["Body"] as body:
                return bytes(body.read(limit))

        content = await self._aws.run(STORE, read, size=limit)
        if is_html(content):
            raise Unreadable(f"s3 answers with a web page in the place of {name}")
        return content

    async def write(self, name: str, body: AsyncIterator[bytes]) -> None:
        """Upload a streamed object. An interrupted upload leaves no object, and no billed parts."""
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
            with suppress(ProviderError):  # `end_uploads` aborts it later
                await self._aws.call(STORE, "abort_multipart_upload", **upload)
            raise

    async def delete(self, name: str) -> None:
        """Delete an object; no error if it does not exist."""
        await self._aws.call(STORE, "delete_object", **self._at(name))

    async def delete_all(self, begins: str) -> None:
        """Delete everything with this prefix, including incomplete uploads."""
        await self.end_uploads(begins)
        keys = [{"Key": self._prefix + one.name} for one in await self.objects(begins)]
        for start in range(0, len(keys), DELETE_AT_ONCE):
            await self._delete_keys(keys[start : start + DELETE_AT_ONCE])

    async def end_uploads(self, begins: str) -> None:
        """Abort incomplete uploads with this prefix: their parts are billed, and not in the list of objects."""
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
        """Delete in one call, which reports each key; the first failure is raised for all."""
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
    """The body in parts of `size` bytes, the last one shorter. Buffers one part and a chunk."""
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
    """The bucket of an s3:// URI as a location, and the key: for objects outside of the connection's location."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return S3Location(bucket=bucket), key
