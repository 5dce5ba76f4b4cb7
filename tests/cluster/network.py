"""The addresses of one cluster and its interfaces: a bridge on the host, a veth pair into each node.

A node has its own network namespace, so its iptables rules, routes and pod interfaces end with it; the host has only a
bridge, one veth per node and three routes. Every cluster takes a free /16, so several can run side by side on the same
port numbers.

    host, 10.B.0.1 (API server, DNS, registry) ── bridge ──┬── node 1, 10.B.0.11 ── pods 10.B.17.0/24
                                                           └── node 2, 10.B.0.12 ── pods 10.B.18.0/24

The host reaches pods and Services by routes. Pods reach the host's cluster address and nothing beyond it: the host
does not forward.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
from dataclasses import dataclass
from pathlib import Path

from tests.cluster import shell
from tests.cluster.errors import ClusterError
from tests.cluster.paths import lock

BLOCKS = range(224, 250)
"""Second bytes of 10.B.0.0/16 that a cluster may take."""


@dataclass(frozen=True)
class Addresses:
    """Addresses derived from the number of a cluster's /16, and the name of its bridge."""

    block: int
    bridge: str

    @property
    def host(self) -> str:
        """The host's address in the cluster: API server, DNS and registry listen there."""
        return f"10.{self.block}.0.1"

    @property
    def loopback(self) -> str:
        """This cluster's own loopback address, for what only the host may reach (etcd, health)."""
        return f"127.{self.block}.0.1"

    @property
    def pods(self) -> str:
        """All pod networks together."""
        return f"10.{self.block}.16.0/20"

    @property
    def services(self) -> str:
        """The addresses of Services."""
        return f"10.{self.block}.128.0/20"

    @property
    def dns(self) -> str:
        """The DNS Service."""
        return f"10.{self.block}.128.10"

    @property
    def everything(self) -> str:
        """The whole /16."""
        return f"10.{self.block}.0.0/16"

    def node(self, number: int) -> str:
        """The address of node 1, 2, …"""
        return f"10.{self.block}.0.{10 + number}"

    def node_pods(self, number: int) -> str:
        """The pod network of node 1, 2, …"""
        return f"10.{self.block}.{16 + number}.0/24"

    def wire(self, number: int) -> str:
        """The host's end of a node's veth pair."""
        return f"{self.bridge}n{number}"


def bridge_of(owner: Path) -> str:
    """The name of a cluster's bridge, derived from its folder, so that it is found after a killed run."""
    return f"ft{hashlib.sha256(str(owner).encode()).hexdigest()[:8]}"


def take_addresses(owner: Path) -> Addresses:
    """Make the bridge of the cluster in folder `owner`, on the first /16 that nothing on this machine routes to.

    Raises:
        ClusterError: all blocks are in use.
    """
    with lock("network"):
        used = _routed_networks()
        for block in BLOCKS:
            addresses = Addresses(block, bridge_of(owner))
            if not any(ipaddress.ip_network(addresses.everything).overlaps(other) for other in used):
                shell.run("ip", "link", "add", addresses.bridge, "type", "bridge")
                shell.run("ip", "addr", "add", f"{addresses.host}/24", "dev", addresses.bridge)
                shell.run("ip", "link", "set", addresses.bridge, "up")
                return addresses
    raise ClusterError(
        f"no free 10.x.0.0/16 among {BLOCKS.start}-{BLOCKS.stop - 1}: see `ip route` and end old clusters"
    )


def connect_node(addresses: Addresses, number: int, pid: int) -> None:
    """Create the veth pair between the bridge and the network namespace of process `pid`, with the routes of both ends.

    From the node everything outside the cluster is unreachable, as behind a strict firewall: a test that needs the
    internet fails in milliseconds, and not after a timeout.
    """
    outer, inner = addresses.wire(number), "eth0"
    shell.run("ip", "link", "add", outer, "type", "veth", "peer", "name", inner, "netns", str(pid))
    shell.run("ip", "link", "set", outer, "master", addresses.bridge, "up")
    inside = ("nsenter", "--target", str(pid), "--net", "--")
    shell.run(*inside, "ip", "link", "set", "lo", "up")
    shell.run(*inside, "ip", "addr", "add", f"{addresses.node(number)}/24", "dev", inner)
    shell.run(*inside, "ip", "link", "set", inner, "up")
    shell.run(*inside, "ip", "route", "add", addresses.services, "via", addresses.host)
    shell.run(*inside, "ip", "route", "add", "unreachable", "default")
    shell.run(
        "ip", "route", "replace", addresses.node_pods(number), "via", addresses.node(number), "dev", addresses.bridge
    )
    if number == 1:
        shell.run("ip", "route", "replace", addresses.services, "via", addresses.node(1), "dev", addresses.bridge)


def connect_pods(addresses: Addresses, pid: int, other: int) -> None:
    """Let the node whose namespaces process `pid` holds reach the pods of node `other`."""
    shell.run(
        "nsenter", "--target", str(pid), "--net", "--",
        "ip", "route", "replace", addresses.node_pods(other), "via", addresses.node(other),
    )  # fmt: skip


def release(owner: Path) -> None:
    """Remove the bridge, and with it the host's routes; a node's veth ends with its namespace, or here."""
    bridge = bridge_of(owner)
    for link in json.loads(shell.run("ip", "-json", "link", "show")):
        if link["ifname"] == bridge or link["ifname"].startswith(f"{bridge}n"):
            shell.succeeds("ip", "link", "delete", link["ifname"])  # both ends of a wire go together, so it may be gone


def _routed_networks() -> list[ipaddress.IPv4Network]:
    routes = json.loads(shell.run("ip", "-json", "-4", "route", "show", "table", "all"))
    destinations = (route["dst"] for route in routes if route["dst"] != "default")
    return [ipaddress.IPv4Network(destination, strict=False) for destination in destinations]
