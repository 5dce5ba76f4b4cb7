"""At which address a service is likely to have OpenAI's API, where nothing of it is at the one that was written. Pure.

People write a host without `/v1`. Some services are right without a version, so this is no rule: it is thought of once
nobody has answered as the API does.
"""

import re
from urllib.parse import urlsplit

_VERSION = re.compile(r"/v\d[a-z0-9.]*(/|$)", re.IGNORECASE)


def probably(base_url: str) -> str | None:
    """Another address, which most services would have; None where the one that was written has a version in it."""
    parts = urlsplit(base_url)
    if _VERSION.search(parts.path):
        return None
    return parts._replace(path=f"{parts.path.rstrip('/')}/v1").geturl()
