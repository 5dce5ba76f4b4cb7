"""An object of the cluster as it crosses the API: plain JSON, which the kinds of this package give a meaning."""

from typing import Any

Manifest = dict[str, Any]
"""One object: apiVersion, kind, metadata and the rest."""
