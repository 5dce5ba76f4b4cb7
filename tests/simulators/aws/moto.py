"""Moto's server beside the simulators: S3, IAM, STS and CloudWatch."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache


@contextmanager
def moto(host: str = "127.0.0.1") -> Iterator[str]:
    """Serve from a thread; yields the address."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication  # heavy: only for tests that need it
    from moto.server import ThreadedMotoServer

    # It looks through its folders and patterns at each request: a quarter of its time.
    found = DomainDispatcherApplication.get_backend_for_host
    DomainDispatcherApplication.get_backend_for_host = cache(found)  # type: ignore[method-assign]
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # a line for each request
    server = ThreadedMotoServer(ip_address=host, port=0, verbose=False)
    server.start()
    try:
        bound, port = server.get_host_and_port()
        yield f"http://{bound}:{port}"
    finally:
        server.stop()
        DomainDispatcherApplication.get_backend_for_host = found  # type: ignore[method-assign]
