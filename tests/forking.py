"""Processes forked from one that has imported already what they all need: seconds saved with each.

multiprocessing has one such server in a process and loads nothing more into it while it runs; so it is stopped, by the
way that CPython's own tests take, when others ask for other modules.
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
