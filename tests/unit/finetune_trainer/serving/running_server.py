"""A real server on a loopback port, in a thread of the test's process."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from finetune_trainer.serving.app import ModelHolder, build_app
from tests.unit.finetune_trainer.waiting import wait_until

SERVED = "sentiment"
"""Name that the server under test gives to its model."""


@contextmanager
def running_server(room: ModelHolder, key=None, *, sagemaker: bool = False) -> Iterator[str]:
    """Serve `room`; yields the server's address."""
    server = uvicorn.Server(
        uvicorn.Config(
            build_app(room, key, sagemaker=sagemaker),
            host="127.0.0.1",
            port=0,
            log_config=None,
            timeout_graceful_shutdown=5,
        )
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        wait_until(lambda: server.started)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(10)
        assert not thread.is_alive()
