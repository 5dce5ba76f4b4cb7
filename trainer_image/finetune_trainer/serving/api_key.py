"""The bearer keys that clients must send, from a file that changes with its Secret."""

import hashlib
import hmac
import logging
from pathlib import Path

from finetune_api.reasons import Reason
from finetune_trainer.errors import TrainerError

_log = logging.getLogger(__name__)
_Stamp = tuple[int, int, int]


class KeyFile:
    """Accepts each non-empty line of the file as a key (two lines during a rotation).

    The file is read again when it changes. Without a readable key every request is refused.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: _Stamp | None = None
        self._digests: list[bytes] = []
        if not self._current():
            raise TrainerError(
                Reason.SPEC_INVALID,
                f"--api-key-file {path}: no key can be read from it",
                "Check that the Secret that apiKeySecretRef names has the key, and that it is not empty.",
            )

    def accepts(self, authorization: str | None) -> bool:
        """Whether the Authorization header contains one of the keys, in constant time."""
        scheme, _, key = (authorization or "").partition(" ")
        if scheme.lower() != "bearer":
            return False
        given = hashlib.sha256(key.strip().encode()).digest()
        return any([hmac.compare_digest(given, digest) for digest in self._current()])  # noqa: C419 - no early end

    def _current(self) -> list[bytes]:
        stamp = self._read_stamp()
        if stamp is None or stamp != self._stamp:
            self._stamp, self._digests = stamp, self._read()
        return self._digests

    def _read_stamp(self) -> _Stamp | None:
        try:
            stat = self._path.stat()
        except OSError:
            return None
        return stat.st_mtime_ns, stat.st_ino, stat.st_size

    def _read(self) -> list[bytes]:
        try:
            lines = self._path.read_text().split()
        except (OSError, UnicodeDecodeError) as error:
            _log.error("the API key file cannot be read, every request is refused: %s", type(error).__name__)
            return []
        return [hashlib.sha256(line.encode()).digest() for line in lines]
