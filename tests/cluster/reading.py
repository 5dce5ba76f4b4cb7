"""Reads objects without a kubectl process for each, for polling several times a second."""

from __future__ import annotations

import json
import ssl
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from tests.cluster.errors import ClusterError

SECONDS = 30


def read(kubeconfig: Path, ca: Path, path: str) -> dict[str, Any] | None:
    """The object at a path of the API server, read as a kubeconfig's user; None if there is none.

    Raises:
        ClusterError: it does not answer, or refuses.
    """
    config = json.loads(kubeconfig.read_text())
    server, token = config["clusters"][0]["cluster"]["server"], config["users"][0]["user"]["token"]
    context = ssl.create_default_context(cafile=str(ca))
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    request = urllib.request.Request(server + path, headers={"Authorization": f"Bearer {token}"})
    try:
        with opener.open(request, timeout=SECONDS) as answer:
            found: dict[str, Any] = json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 404:
                return None
            raise ClusterError(f"GET {path}: {error.code} {error.read().decode(errors='replace')}") from error
    except OSError as error:
        raise ClusterError(f"GET {path}: {error}") from error
    return found
