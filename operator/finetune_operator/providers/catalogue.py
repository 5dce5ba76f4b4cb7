"""The catalogue of prices and dates, read again when its file changes; and which entry of it is a connection's."""

import logging
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import ValidationError

from finetune_api.aws import COMMERCIAL, partition_of
from finetune_api.catalogue import Catalogue
from finetune_api.connection import LLMConnectionSpec
from finetune_operator.providers.openai.wire import OPENAI_HOST, is_openai

logger = logging.getLogger(__name__)

_MOST = 3
"""Errors of a file that are told: whoever mends these sees the next."""


class CatalogueFile:
    """Reads the catalogue. Without a file, or with one that cannot be read, nothing is known: budgets are refused."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._stamp: tuple[int, int] | None = None
        self._catalogue = Catalogue()

    def read(self) -> Catalogue:
        """The catalogue as it is now; the one before where the new one cannot be read."""
        if self._path is None:
            return self._catalogue
        try:
            stat = self._path.stat()
            stamp = stat.st_mtime_ns, stat.st_size
            if stamp != self._stamp:
                self._stamp = stamp
                self._catalogue = Catalogue.model_validate_json(self._path.read_bytes())
        except (OSError, ValidationError) as error:
            said = _said(error)
            logger.warning("the catalogue of providers %s cannot be read: %s", self._path, said)
            self._catalogue = self._catalogue.model_copy(update={"problem": said})
        return self._catalogue


def _said(error: OSError | ValidationError) -> str:
    """What is wrong with the file, by its fields."""
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    found = error.errors(include_input=False, include_url=False, include_context=False)
    said = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" if one["loc"] else one["msg"] for one in found[:_MOST]]
    return "; ".join(said)


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


def data_rules(spec: LLMConnectionSpec) -> str:
    """Whose rules the data must meet: a name in the trainer's provider_rules."""
    if spec.open_ai is None:
        return spec.provider
    return "openAI" if catalogue_name(spec) == OPENAI_HOST else "openAICompatible"
