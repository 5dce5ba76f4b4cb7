"""A separate process that competes for a Lease and, while it leads, writes its term into a ConfigMap.

Prints its state on stdout: `leads`, then `lost` or `released`. On SIGUSR1 it is busy for longer than the renewal
deadline, on its event loop and on every thread of the executor, and prints `idle` afterwards.
"""

import asyncio
import signal
import sys
import time
from pathlib import Path

from finetune_operator.runtime.errors import KubeError, LeadershipLost
from finetune_operator.runtime.kube import Kube, Resource
from finetune_operator.runtime.leadership.lease_thread import lease_thread
from finetune_operator.runtime.settings import Settings

CONFIG_MAPS = Resource("", "v1", "configmaps", "ConfigMap")

MORE_THAN_THREADS = 64
"""More tasks than the executor has threads, so that some are queued."""


def work() -> None:
    """Compute without yielding to the event loop or to the executor's threads."""
    until = time.monotonic() + 5.5
    for _ in range(MORE_THAN_THREADS):
        asyncio.get_running_loop().run_in_executor(None, spin, until)
    spin(until)
    print("idle", flush=True)


def spin(until: float) -> None:
    """Be busy until this time."""
    while time.monotonic() < until:
        pass


async def write_in_turns(kube: Kube, identity: str) -> None:
    """Write as fast as possible; only the guard stops it."""
    turn = 0
    while True:
        turn += 1
        try:
            await kube.merge_patch(CONFIG_MAPS, "turns", "default", {"data": {identity: str(turn)}})
        except KubeError as error:
            print(f"write failed: {error!r}", flush=True)
        await asyncio.sleep(0.02)


async def main(kubeconfig: str, name: str, identity: str) -> None:
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, work)
    times = {"lease_duration_seconds": 5, "lease_renew_seconds": 4, "lease_retry_seconds": 0.5}
    settings = Settings(kubeconfig=Path(kubeconfig), namespace="default", lease_name=name, **times)
    async with Kube.connect(settings) as kube, lease_thread(settings, identity) as leadership:
        await leadership.acquire()
        print("leads", flush=True)
        writing = asyncio.create_task(write_in_turns(kube.guarded(leadership.assert_held), identity))
        ending = asyncio.create_task(ended.wait())
        await asyncio.wait({writing, ending}, return_when=asyncio.FIRST_COMPLETED)
        if ending.done():
            writing.cancel()
            await leadership.release()
            print("released", flush=True)
            return
        if not isinstance(writing.exception(), LeadershipLost):
            raise SystemExit(f"not stopped by the guard: {writing.exception()!r}")
        await leadership.lost()
        ending.cancel()
        print("lost", flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:4]))
