"""The Debian packages that a node and the image builds need, installed by apt when absent and never removed.

Everything else that runs is built from Go modules (binaries.py).
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tests.cluster import shell
from tests.cluster.console import say
from tests.cluster.errors import MachineError
from tests.cluster.paths import cache_dir, lock

CONTROL_PLANE = {
    "iproute2": "ip",
    "openssl": "openssl",
    "util-linux": "nsenter",
    "ca-certificates": "update-ca-certificates",
}
NODE = {
    "containerd": "containerd", "runc": "runc", "iptables": "iptables", "mount": "mount",
    "containernetworking-plugins": "/usr/lib/cni/ptp",
}  # fmt: skip
IMAGES = {"buildah": "buildah", "mmdebstrap": "mmdebstrap"}


def ensure(*groups: dict[str, str]) -> None:
    """Install the packages whose program is not on this machine.

    Raises:
        MachineError: packages are missing, and this is not Debian or not root.
    """
    wanted = {name: program for group in groups for name, program in group.items()}
    missing = [name for name, program in wanted.items() if not _present(program)]
    if not missing:
        return
    if not is_root() or shutil.which("apt-get") is None:
        raise MachineError(f"install these Debian packages first (as root): {' '.join(missing)}")
    say(f"installing Debian packages: {' '.join(missing)}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    log = cache_dir("logs") / "apt.log"
    with lock("apt"):
        shell.logged(["apt-get", "update"], log, env=environment)
        shell.logged(["apt-get", "install", "-y", "--no-install-recommends", *missing], log, env=environment)


def _present(program: str) -> bool:
    """Whether a program is on PATH (including sbin folders) or, given a path, exists."""
    if program.startswith("/"):
        return Path(program).exists()
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") is not None


def is_root() -> bool:
    """Whether this process runs as root."""
    return os.geteuid() == 0


def need_root(what: str) -> None:
    """Fail early, instead of with another tool's message minutes later, after Kubernetes has been compiled.

    Raises:
        MachineError: this process does not run as root.
    """
    if not is_root():
        raise MachineError(f"{what} needs root: run make as root, or with sudo")
