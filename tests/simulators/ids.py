"""Identifiers in providers' formats: unique, and the same in every run."""

import random
import string

LETTERS = string.ascii_letters + string.digits
LOWER = string.ascii_lowercase + string.digits


class Ids:
    """Makes identifiers from a seed."""

    def __init__(self, seed: int = 0) -> None:
        self._random = random.Random(seed)

    def new(self, prefix: str = "", length: int = 24, letters: str = LETTERS) -> str:
        """A new identifier."""
        return prefix + "".join(self._random.choices(letters, k=length))
