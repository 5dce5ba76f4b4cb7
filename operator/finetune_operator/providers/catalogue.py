"""The catalogue of prices and dates, reloaded when its file changes, and the entry for a connection."""

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
"""How many errors of a file or an entry are shown; the next ones appear once these are fixed."""
LONGEST = 300
"""Maximum length of these errors' text."""


class CatalogueFile:
    """Reads the catalogue. Without a file there are no prices, nor for a provider whose entry is invalid.

    Budgets are refused then: an outdated price must not be used to spend money.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._stamp: tuple[int, int] | None = None
        self._catalogue = Catalogue()

    def read(self) -> Catalogue:
        """The current catalogue; the previous one if the file is not a catalogue at all."""
        if self._path is None:
            return self._catalogue
        try:
            stat = self._path.stat()
            stamp = stat.st_mtime_ns, stat.st_size
            if stamp != self._stamp:
                self._stamp = stamp
                self._catalogue = _parsed(self._path.read_bytes())
        except OSError as error:
            self._stamp = None  # read it as soon as it becomes readable
            self._unread(error.strerror or type(error).__name__)
        except ValidationError as error:
            self._unread(_said(error))
        return self._catalogue

    def _unread(self, problem: str) -> None:
        logger.warning("the catalogue of providers %s cannot be read: %s", self._path, problem)
        self._catalogue = self._catalogue.model_copy(update={"problem": problem})


def _parsed(content: bytes) -> Catalogue:
    """Parse entry by entry: an error in one does not affect the others.

    Raises:
        ValidationError: the file is not a catalogue.
    """
    entries = _Entries.model_validate_json(content).providers
    return Catalogue(providers={name: _facts(name, entry) for name, entry in entries.items()})


class _Entries(ApiModel):
    """A catalogue whose entries are not parsed yet."""

    providers: dict[str, Any] = Field(default_factory=dict)


def _facts(name: str, entry: Any) -> ProviderFacts:
    try:
        return ProviderFacts.model_validate(entry)
    except ValidationError as error:
        said = _said(error)
        logger.warning("the catalogue's entry of %s cannot be read, nothing is known of it: %s", name, said)
        return ProviderFacts(problem=said)


def _said(error: ValidationError) -> str:
    """The errors of the file or an entry, by field."""
    found = error.errors(include_input=False, include_url=False, include_context=False)
    said = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" if one["loc"] else one["msg"] for one in found[:SHOWN]]
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return "; ".join(said)[:LONGEST] + more


def catalogue_name(spec: LLMConnectionSpec) -> str:
    """The provider's name in the catalogue. Prices and dates differ by host, AWS partition and Azure cloud."""
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
