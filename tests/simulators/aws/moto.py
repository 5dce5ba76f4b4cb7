"""Moto's server beside the simulators: S3, IAM, STS and CloudWatch."""

import functools
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def moto(host: str = "127.0.0.1") -> Iterator[str]:
    """Serve from a thread; yields the address."""
    from moto import backends  # heavy: only for tests that need it
    from moto.server import ThreadedMotoServer

    folders = backends.list_of_moto_modules
    backends.list_of_moto_modules = functools.partial(list, tuple(folders()))  # which looks for 200 at each request
    server = ThreadedMotoServer(ip_address=host, port=0, verbose=False)
    server.start()
    try:
        bound, port = server.get_host_and_port()
        yield f"http://{bound}:{port}"
    finally:
        server.stop()
        backends.list_of_moto_modules = folders
