"""kopf only: events to the queue and the store, login. Nothing is decided here."""

import sys


def _import_kopf_alone() -> None:
    """Import kopf as if the official client were not installed.

    Where it is, kopf imports all of it to know its classes, which nobody here uses: 26 MiB, and half of the start. A
    module that is None cannot be imported; that of the client can be afterwards, for a kubeconfig.
    """
    if "kubernetes" in sys.modules:
        return
    sys.modules["kubernetes"] = None  # type: ignore[assignment]
    try:
        import kopf  # noqa: F401 - for its effect
    finally:
        del sys.modules["kubernetes"]


_import_kopf_alone()
