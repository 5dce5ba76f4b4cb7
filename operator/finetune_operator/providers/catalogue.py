"""The catalogue of prices and dates, read again when its file changes; and which entry of it is a connection's."""

import logging
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import Field, ValidationError

from finetune_api.aws import COMMERCIAL, partition_of
from finetune_api.base import ApiModel
from finetune_api.catalogue import Catalogue, ProviderFacts
from finetune_api.connection import LLMConnectionSpec
from finetune_api.openai import OPENAI_HOST, is_openai

logger = logging.getLogger(__name__)

SHOWN = 3
"""Errors of a file or an entry that are told: whoever mends these sees the next."""
LONGEST = 300
"""Letters of what is told of them."""


class CatalogueFile:
    """Reads the catalogue. Without a file nothing is known, nor of a provider whose entry cannot be read.

    Budgets are refused then: a price that was right before somebody has changed it is none to spend money by.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._stamp: tuple[int, int] | None = None
        self._catalogue = Catalogue()

    def read(self) -> Catalogue:
        """The catalogue as it is now; the one before where the file is no catalogue at all."""
        if self._path is None:
            return self._catalogue
        try:
            stat = self._path.stat()
            stamp = stat.st_mtime_ns, stat.st_size
            if stamp != self._stamp:
                self._stamp = stamp
                self._catalogue = _parsed(self._path.read_bytes())
        except OSError as error:
            self._stamp = None  # as soon as it can be read it is
            self._unread(error.strerror or type(error).__name__)
        except ValidationError as error:
            self._unread(_said(error))
        return self._catalogue

    def _unread(self, problem: str) -> None:
        logger.warning("the catalogue of providers %s cannot be read: %s", self._path, problem)
        self._catalogue = self._catalogue.model_copy(update={"problem": problem})


def _parsed(content: bytes) -> Catalogue:
    """Entry by entry: a slip in one of them leaves the others as they are.

    Raises:
        ValidationError: it is no catalogue.
    """
    entries = _Entries.model_validate_json(content).providers
    return Catalogue(providers={name: _facts(name, entry) for name, entry in entries.items()})


class _Entries(ApiModel):
    """A catalogue whose entries have not been read yet."""

    providers: dict[str, Any] = Field(default_factory=dict)


def _facts(name: str, entry: Any) -> ProviderFacts:
    try:
        return ProviderFacts.model_validate(entry)
    except ValidationError as error:
        said = _said(error)
        logger.warning("the catalogue's entry of %s cannot be read, nothing is known of it: %s", name, said)
        return ProviderFacts(problem=said)


def _said(error: ValidationError) -> str:
    """What is wrong with the file or an entry, by its fields."""
    found = error.errors(include_input=False, include_url=False, include_context=False)
    said = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" if one["loc"] else one["msg"] for one in found[:SHOWN]]
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return "; ".join(said)[:LONGEST] + more


def catalogue_name(spec: LLMConnectionSpec) -> str:
    """What the catalogue calls the provider: prices and dates of one host say nothing of another.

    Nor do those of one partition of AWS, or of one of Azure's clouds.
    """
    aws, azure = spec.bedrock or spec.sage_maker, spec.azure_open_ai
    if aws is not None and partition_of(aws.region) != COMMERCIAL:
        return f"{spec.provider}-{partition_of(aws.region)}"
    host = urlsplit((azure and azure.endpoint) or "").hostname or ""
    if host.endswith((".azure.us", ".azure.cn")):
        return f"{spec.provider}-{host.rpartition('.')[2]}"
    if spec.open_ai is None:
        return spec.provider
    host = urlsplit(spec.open_ai.base_url).netloc
    return OPENAI_HOST if is_openai(host) else host
