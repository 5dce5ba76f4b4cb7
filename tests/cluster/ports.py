"""Ports of this machine: one that is free, and whether somebody answers at an address."""

import socket
import urllib.request

_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def answers(url: str) -> bool:
    """Whether a GET succeeds there, without a proxy, within five seconds."""
    try:
        with _DIRECT.open(url, timeout=5) as answer:
            return bool(200 <= answer.status < 300)
    except OSError:
        return False
