"""JSON logs on stdout, one line each, that name the object they are about and contain no secrets.

Each line: time (RFC 3339, UTC), level, logger, message, and if known kind, namespace, name, traceback. Redaction is the
last safety net after careful callers; it covers the finished text of messages and tracebacks of every library's logger.
"""

import contextvars
import logging
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

import orjson

REDACTED = "[redacted]"
_MAX_TEXT = 16 * 1024  # characters of a message or traceback; a line that is longer breaks log shippers
_MAX_SEARCHED = 256 * 1024

_about: contextvars.ContextVar[tuple[str, str, str] | None] = contextvars.ContextVar("about", default=None)

_PRIVATE_KEY = re.compile(
    r"-----BEGIN [A-Z ]{0,32}PRIVATE KEY-----.*?(?:-----END [A-Z ]{0,32}PRIVATE KEY-----|\Z)", re.DOTALL
)
# Starts at the beginning of a run of such letters, and only before a dot: otherwise each "eyJ" in a long run would be
# read to its end, and a line of a trainer's log could block the operator for seconds.
_JWT = re.compile(
    r"(?<![A-Za-z0-9_-])(?=[A-Za-z0-9_-]*+\.[A-Za-z0-9_-]{4})([A-Za-z0-9_-]*?)"
    r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{4,}(?:\.[A-Za-z0-9_-]*)?"
)
_SCHEME = re.compile(r"(?i)\b(bearer|basic)(\s+|%20)[A-Za-z0-9._~+/=-]{6,}")
# Authorization: x / "api-key": "x" / password=x / AWS_SECRET_ACCESS_KEY='x' / token: x, but not "61021 tokens: ..."
# and no fields of ours: spec.apiKeySecretRef: secret "x" not found
_NAMED = re.compile(
    r"""(?ix)
    ( (?: authorization | api[_-]?key | access[_-]?key | secret[_-]?key | account[_-]?key | passw(?:or)?d
        | client[_-]?secret | private[_-]?key | token(?!s|iz|f1\b) | credential(?!s)
        | x-amz-signature | (?<=[?&])sig )
      (?! \w{0,16} (?-i:Ref) \b ) [\w-]{0,16} ["']? \s* [=:] \s* )
    (?!\[redacted\])
    (?: b?"(?:[^"\\]|\\.)*" | b?'(?:[^'\\]|\\.)*' | [^\s,;&"'}\])]+ )
    """
)
# https://user:x@host, s3://key:x@bucket, and https://x@host, but not abfs://container@account
_IN_ADDRESS = re.compile(
    r"""((?:(?<=http://)|(?<=https://))|(?<=://)[^\s/?#"'<>@:]{0,256}:)[^\s/?#"'<>]{1,1024}(?=@)"""
)
_KNOWN_SHAPES = re.compile(
    r"\b(?:sk-[A-Za-z0-9_-]{16,}|hf_[A-Za-z0-9]{16,}|gh[pousr]_[A-Za-z0-9]{20,}|(?:AKIA|ASIA)[A-Z0-9]{16}"
    r"|xox[abprs]-[A-Za-z0-9-]{10,})"
)


_SECRETS: dict[str, None] = {}
_SECRETS_KEPT, _SHORTEST = 4096, 8


def hide(secret: str) -> None:
    """Redact this text from now on, whatever it looks like; texts shorter than a word are ignored."""
    if len(secret) >= _SHORTEST:
        _SECRETS.pop(secret, None)
        _SECRETS[secret] = None
        if len(_SECRETS) > _SECRETS_KEPT:
            del _SECRETS[next(iter(_SECRETS))]


def redact(text: str) -> str:
    """The text without what looks like a key, token, password or private key, or is known to be one. Idempotent."""
    for secret in _SECRETS:
        if secret in text:
            text = text.replace(secret, REDACTED)
    text = _PRIVATE_KEY.sub(REDACTED, text)
    text = _JWT.sub(rf"\1{REDACTED}", text)
    text = _SCHEME.sub(rf"\1 {REDACTED}", text)
    text = _IN_ADDRESS.sub(rf"\1{REDACTED}", text)
    text = _NAMED.sub(rf"\1{REDACTED}", text)
    return _KNOWN_SHAPES.sub(REDACTED, text)


@contextmanager
def about(kind: str, namespace: str, name: str) -> Iterator[None]:
    """All log lines inside, of any code, name this object."""
    token = _about.set((kind, namespace, name))
    try:
        yield
    finally:
        _about.reset(token)


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Renders, shortens and redacts the record. Never raises: a broken record still becomes a line."""
        line: dict[str, object] = {
            "time": _time(record.created),
            "level": record.levelname,
            "logger": record.name,
            "message": _clean(_message(record)),
        }
        subject = _subject(record)
        if subject is not None:
            line |= {key: value for key, value in zip(("kind", "namespace", "name"), subject, strict=True) if value}
        if record.exc_info and record.exc_info[1] is not None:
            line["traceback"] = _clean(self.formatException(record.exc_info))
        elif record.stack_info:
            line["traceback"] = _clean(self.formatStack(record.stack_info))
        return orjson.dumps(line, default=repr).decode()


def configure(level: str, stream: TextIO | None = None) -> None:
    """Makes every logger of the process write JSON to stdout from `level` on; replaces any earlier configuration."""
    handler = logging.StreamHandler(stream or sys.stdout)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)
    # Libraries with handlers of their own would bypass the formatter.
    for name in ("kopf", "aiohttp", "aiohttp.access", "asyncio", "urllib3", "kubernetes"):
        library = logging.getLogger(name)
        library.handlers.clear()
        library.propagate = True
        library.setLevel(logging.NOTSET)
    # In production the metrics say more than a line per request or per watch event.
    for name in ("aiohttp.access", "httpx2", "azure"):
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    # It logs Entra's own texts, which may contain parts of a secret; we report failures ourselves.
    logging.getLogger("azure.identity").setLevel(max(logging.ERROR, root.level))
    # Below INFO it logs what it sends and receives: rows of datasets, and what is signed.
    logging.getLogger("botocore").setLevel(max(logging.INFO, root.level))
    # At DEBUG it logs request bodies, such as the questions of evaluations.
    logging.getLogger("openai").setLevel(max(logging.INFO, root.level))
    if root.level >= logging.INFO:
        logging.getLogger("kopf.objects").setLevel(max(logging.WARNING, root.level))
    logging.captureWarnings(capture=True)


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # noqa: BLE001 - a wrong format string must not lose the line, nor raise into the caller
        return f"{record.msg} {record.args!r}"


def _subject(record: logging.LogRecord) -> tuple[str, str, str] | None:
    """The object of `about`, or the one that kopf attaches to the records of its object loggers."""
    reference = getattr(record, "k8s_ref", None)
    if isinstance(reference, dict):
        return tuple(str(reference.get(part) or "") for part in ("kind", "namespace", "name"))  # type: ignore[return-value]
    return _about.get()


def _clean(text: str) -> str:
    text = redact(text[:_MAX_SEARCHED])  # before it is shortened: the patterns do not match half a private key
    if len(text) > _MAX_TEXT:
        half = _MAX_TEXT // 2
        text = f"{text[:half]} [...] {text[-half:]}"
    return text


def _time(seconds: float) -> str:
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{int(seconds % 1 * 1000):03d}Z"
