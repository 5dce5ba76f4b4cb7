"""Forks processes from a server that has imported their modules, which saves seconds each.

multiprocessing has one fork server per process, and its preloaded modules are fixed; so it is stopped, as CPython's
own tests do, when other modules are requested.
"""

from multiprocessing import forkserver, get_context
from multiprocessing.context import ForkServerContext

_server = forkserver._forkserver


def forking(*modules: str) -> ForkServerContext:
    """Starts processes that have imported `modules`; nothing forked with other modules may still run."""
    if _server._preload_modules != list(modules):
        _server._stop()
        _server.set_forkserver_preload(list(modules))
    context = get_context("forkserver")
    assert isinstance(context, ForkServerContext)
    return context
