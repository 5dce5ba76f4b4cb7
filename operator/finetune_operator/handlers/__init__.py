"""The only package that uses kopf: login, and events into the queue and the store. Nothing is decided here."""

import sys


def _import_kopf_alone() -> None:
    """Import kopf as if the official client were not installed.

    If it is, kopf imports all of it for its classes, which are not used here: 26 MiB, and half of the start-up time. A
    module that is None in sys.modules cannot be imported; a kubeconfig can import the client later.
    """
    if "kubernetes" in sys.modules:
        return
    sys.modules["kubernetes"] = None  # type: ignore[assignment]
    try:
        import kopf  # noqa: F401 - for its effect
    finally:
        del sys.modules["kubernetes"]


_import_kopf_alone()
