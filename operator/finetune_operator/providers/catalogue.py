"""The catalogue of prices and dates: a file of a ConfigMap, read again when it changes."""

import logging
from pathlib import Path

from pydantic import ValidationError

from finetune_api.catalogue import Catalogue

logger = logging.getLogger(__name__)


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
            logger.warning("the catalogue of providers %s cannot be read: %s", self._path, type(error).__name__)
        return self._catalogue
