"""Ports of this machine: finds a free one, and checks whether an address answers."""

import random
import socket
import urllib.request
from contextlib import suppress
from pathlib import Path

_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_port() -> int:
    """A port that is free on all addresses.

    Not an ephemeral port: the kernel might assign it to a connection before the server binds it.
    """
    first, last = map(int, _RANGE.read_text().split())
    outside: list[int] = [*range(10_000, first), *range(last + 1, 2**16)]
    for port in random.sample(outside, len(outside)):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("", port))
            return port
    raise OSError(f"no port is free but those from {first} to {last}")


def answers(url: str) -> bool:
    """Whether a GET succeeds there, without a proxy, within five seconds."""
    try:
        with _DIRECT.open(url, timeout=5) as answer:
            return bool(200 <= answer.status < 300)
    except OSError:
        return False
