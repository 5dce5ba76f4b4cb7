"""A simulated check pod, which uploads a job's training data to a provider through the operator."""

import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

import aiohttp

from finetune_api.job_status import ProviderFile
from finetune_api.manifest import Manifest
from finetune_api.names import UPLOAD_PATH
from finetune_api.trainer import Report, termination_message

TOKENS = 100
PIECE = 256 * 1024
NOT_YET = {403, 429, 503}
"""The operator has not seen the pod or the end of its aborted upload yet, or operator or provider are rate-limited.

The trainer's pod retries these, too.
"""


@dataclass(frozen=True)
class CheckPod:
    """One pod.

    Args:
        operator: address of the report server.
        token: the pod's.
        of: namespace, name, uid and attempt of its job.
        content: the training data.
        test: the verdict on the test set, if the job has one.
    """

    operator: str
    token: str
    of: Manifest
    content: bytes
    test: Manifest | None = None

    async def send(self) -> ProviderFile | None:
        """Upload all data; None if it was not accepted, which the pod retries."""
        try:
            return await self._put(_pieces(self.content))
        except aiohttp.ClientError:
            return None

    async def break_off(self, end: int) -> None:
        """Abort the upload after this many bytes."""
        try:
            await self._put(_broken(self.content[:end]))
        except (BrokenOff, aiohttp.ClientError):
            return

    def checked(self, file: ProviderFile) -> str:
        """The pod's termination message."""
        found = {"valid": True, "reason": "Valid", "message": "good", "test": self.test}
        checked = {"files": [file.wire()], "tokens": TOKENS}
        report = {**self.of, "phase": "Checked", "checked": checked, "dataset": found}
        return termination_message(Report.model_validate(report))

    async def _put(self, body: AsyncIterator[bytes]) -> ProviderFile | None:
        query = {**self.of, "split": "train", "sha256": hashlib.sha256(self.content).hexdigest()}
        headers = {"Authorization": f"Bearer {self.token}", "Content-Length": str(len(self.content))}
        async with (
            aiohttp.ClientSession(headers=headers) as session,
            session.put(f"{self.operator}{UPLOAD_PATH}", params=query, data=body, ssl=False) as answer,
        ):
            if answer.status in NOT_YET:
                return None
            assert answer.status == 200, await answer.text()
            return ProviderFile.model_validate(await answer.json())


class BrokenOff(Exception):
    """The pod ended in the middle of its upload."""


async def _pieces(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), PIECE):
        yield content[start : start + PIECE]


async def _broken(content: bytes) -> AsyncIterator[bytes]:
    async for piece in _pieces(content):
        yield piece
    raise BrokenOff
