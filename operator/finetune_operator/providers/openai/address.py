"""Guesses the address of a service's OpenAI API if nothing like it is at the configured one. Pure.

Users forget `/v1`. Some services have no version in the path, so the guess is only used once the address has failed.
"""

import re
from urllib.parse import urlsplit

_VERSION = re.compile(r"/v\d[a-z0-9.]*(/|$)", re.IGNORECASE)


def probably(base_url: str) -> str | None:
    """The address with `/v1`, as most services have it; None if it already contains a version."""
    parts = urlsplit(base_url)
    if _VERSION.search(parts.path):
        return None
    return parts._replace(path=f"{parts.path.rstrip('/')}/v1").geturl()
