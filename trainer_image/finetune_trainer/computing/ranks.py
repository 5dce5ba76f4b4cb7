"""The processes that train one model together: this one's rank, its share of a step, and communication between them.

    rank 0      reads and checks the data, writes checkpoints, evaluates, reports; broadcasts to the others
    each node   tokenises once: its first rank writes tokens, the others map them
    every rank  loads the model, trains and validates on its share; gradients are summed, so that weights stay equal

A model that does not fit on one rank is sharded: `sharding.py`.

Ranks wait for slow work (data, checkpoints) on torchrun's store, without a timeout: a collective would give up after
minutes. Collectives are only used for steps. `launch.py` starts the processes.
"""

import json
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import count
from typing import TYPE_CHECKING, Any, TypeVar

from finetune_api.reasons import Reason
from finetune_trainer.errors import TrainerError, is_short_of_device_memory

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch._C._distributed_c10d import Store

T = TypeVar("T")

_FIRST_PAUSE, _LAST_PAUSE = 0.01, 1.0
"""Seconds between two polls of the store."""

_TIMEOUT = timedelta(minutes=30)
"""Of a collective: longer than ranks differ within one step."""

_CONNECT_TIMEOUT = timedelta(minutes=5)
"""Of connecting to the store, which exists before the ranks: torchrun's agents use it for their rendezvous."""

_BUCKET_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class World:
    """The ranks of one attempt. `ALONE` is a world of one rank, without communication."""

    rank: int = 0
    size: int = 1
    store: "Store | None" = None
    per_node: int = 1
    """Ranks that share a pod, its folders and its CPUs."""
    _numbers: Iterator[int] = field(default_factory=count, init=False, repr=False, compare=False)
    """Make the store's keys unique: a repeated name would find the previous value."""

    @property
    def is_first(self) -> bool:
        """Whether this rank reports and writes for all."""
        return self.rank == 0

    def share(self, rows: Sequence[int], lengths: "Sequence[int] | NDArray[np.int64]") -> list[int]:
        """This rank's rows of a step: dealt by length, alternating direction, so that token counts are similar."""
        by_length = sorted(range(len(rows)), key=lambda place: -lengths[place])
        turns = range(math.ceil(len(rows) / self.size))
        places = (turn * self.size + (self.size - 1 - self.rank if turn % 2 else self.rank) for turn in turns)
        return [rows[by_length[place]] for place in places if place < len(rows)] if self.size > 1 else list(rows)

    def broadcast(self, name: str, work: Callable[[], Any]) -> Any:
        """Call `work` on rank 0 and broadcast its result, which must be valid JSON, to every rank.

        A collective call, in the same order on every rank; the name only helps to debug the store.

        Raises:
            TrainerError: Interrupted, rank 0 has ended.
        """
        if self.store is None:
            return work()
        key = self._key(name)
        if self.is_first:
            result = work()
            with _lost_rank_interrupts():
                self.store.set(key, json.dumps(result))
            return result
        with _lost_rank_interrupts():
            self._wait_for(key)
            return json.loads(self.store.get(key))

    def once_per_node(self, name: str, work: Callable[[], T], otherwise: Callable[[], T]) -> T:
        """Call `work` on the first rank of each node, then `otherwise` on its other ranks.

        Raises:
            TrainerError: Interrupted, the first rank has ended.
        """
        if self.store is None or self.per_node == 1:
            return work()
        done = self._key(f"{name} on node {self.rank // self.per_node}")
        if self.rank % self.per_node == 0:
            made = work()
            with _lost_rank_interrupts():
                self.store.set(done, "")
            return made
        with _lost_rank_interrupts():
            self._wait_for(done)
        return otherwise()

    def _key(self, name: str) -> str:
        return f"{next(self._numbers)} {name}"

    def connect(self) -> None:
        """Wait for every rank, and create the process group: from then on collectives work.

        Raises:
            TrainerError: Interrupted, one of them has ended.
        """
        if self.store is None:
            return
        import torch
        from torch import distributed

        with _lost_rank_interrupts():
            if self.store.add("arrived", 1) == self.size:
                self.store.set("all here", "")
            self._wait_for("all here")
            backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
            distributed.init_process_group(
                backend, store=self.store, rank=self.rank, world_size=self.size, timeout=_TIMEOUT
            )

    @contextmanager
    def connected(self) -> Iterator[None]:
        """A block in which collectives work, also those of a sharded model.

        Raises:
            TrainerError: Interrupted, one of the ranks has ended.
        """
        self.connect()
        try:
            yield
            self.any_rank(False)  # detects a rank that has ended, before waiting for it
            self._leave_with_all()
        except RuntimeError as error:
            if self.store is None or not is_lost_rank(error):
                raise
            raise _lost_rank() from error
        self.disconnect()

    def _leave_with_all(self) -> None:
        """Wait until all ranks have read the last messages: closing a connection discards unread ones.

        The store may belong to rank 0, which therefore leaves last.
        """
        if self.store is None:
            return
        from torch.distributed.elastic.utils.store import synchronize

        synchronize(self.store, b"", self.rank, self.size, "leaving", _TIMEOUT.total_seconds())

    def disconnect(self) -> None:
        """Destroy the process group: from now on each rank runs on its own."""
        if self.store is None:
            return
        from torch import distributed

        distributed.destroy_process_group()

    def sums(self, *numbers: float) -> tuple[float, ...]:
        """Each number, summed over all ranks."""
        if self.store is None:
            return numbers
        import torch
        from torch import distributed

        with _lost_rank_interrupts():
            summed = torch.tensor(numbers, dtype=torch.float64)
            distributed.all_reduce(summed)
        return tuple(summed.tolist())

    def any_rank(self, flag: bool) -> bool:
        """Whether it is true on any rank."""
        return self.sums(float(flag))[0] > 0

    def largest(self, number: int) -> int:
        """The maximum over all ranks."""
        if self.store is None:
            return number
        import torch
        from torch import distributed

        with _lost_rank_interrupts():
            largest = torch.tensor(number)
            distributed.all_reduce(largest, op=distributed.ReduceOp.MAX)
        return int(largest)

    def broadcast_weights(self, parameters: Iterable["torch.Tensor"]) -> None:
        """Broadcast the values of rank 0."""
        if self.store is None:
            return
        from torch import distributed

        with _lost_rank_interrupts():
            for value in parameters:
                distributed.broadcast(value.data, src=0)

    def sum_gradients(self, parameters: Iterable["torch.nn.Parameter"]) -> None:
        """Sum the gradients over all ranks; a parameter without a gradient on any rank keeps none."""
        if self.store is None:
            return
        import torch
        from torch import distributed

        trained = [parameter for parameter in parameters if parameter.requires_grad]
        with _lost_rank_interrupts():
            has = torch.tensor([parameter.grad is not None for parameter in trained], dtype=torch.int32)
            distributed.all_reduce(has)
            for parameter, holders in zip(trained, has.tolist(), strict=True):
                if holders and parameter.grad is None:  # this rank had no rows, or none that used it
                    parameter.grad = torch.zeros_like(parameter)
            for bucket in _buckets([parameter.grad for parameter in trained if parameter.grad is not None]):
                flat = torch.cat([gradient.reshape(-1) for gradient in bucket])
                distributed.all_reduce(flat)
                for gradient, summed in zip(bucket, torch.split(flat, [one.numel() for one in bucket]), strict=True):
                    gradient.copy_(summed.view_as(gradient))

    def reseed(self, seed: int, step: int) -> None:
        """Seed dropout by seed, step and rank: different masks on each rank, and no state to save for a restart."""
        if self.store is None:
            return
        import numpy as np  # imported here: commands that only read a manifest import this file too
        import torch

        torch.manual_seed(int(np.random.SeedSequence([seed, step, self.rank]).generate_state(1)[0]))

    def _wait_for(self, name: str) -> None:
        if self.store is None:
            return
        pause = _FIRST_PAUSE
        while not self.store.check([name]):  # its own wait ignores signals, and logs each timeout
            time.sleep(pause)
            pause = min(2 * pause, _LAST_PAUSE)


ALONE = World()


def join(per_node: int = 1, environment: Mapping[str, str] = os.environ) -> World:
    """The world that torchrun put this process into, or `ALONE`. Collectives only work after `connect`.

    Removes the variables from the environment: accelerate would read them and split the data itself.

    Raises:
        TrainerError: Interrupted, the first node has ended, and with it the store.
    """
    if int(environment.get("WORLD_SIZE", "1")) == 1:
        return ALONE
    from torch.distributed.rendezvous import rendezvous

    with _lost_rank_interrupts():
        store, rank, size = next(iter(rendezvous("env://", timeout=_CONNECT_TIMEOUT)))
    store.set_timeout(_TIMEOUT)
    for variable in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        os.environ.pop(variable, None)
    return World(rank, size, store, per_node)


def _buckets(gradients: Sequence["torch.Tensor"]) -> Iterator[list["torch.Tensor"]]:
    """Group gradients of one dtype and device into large messages: many small ones would be slow."""
    bucket: list[torch.Tensor] = []
    for gradient in gradients:
        full = sum(one.nbytes for one in bucket) + gradient.nbytes > _BUCKET_BYTES
        if bucket and (full or (bucket[0].dtype, bucket[0].device) != (gradient.dtype, gradient.device)):
            yield bucket
            bucket = []
        bucket.append(gradient)
    if bucket:
        yield bucket


@contextmanager
def _lost_rank_interrupts() -> Iterator[None]:
    """Torch has many errors for a lost rank. All are RuntimeErrors, but so is an out-of-memory error."""
    try:
        yield
    except RuntimeError as error:
        if is_short_of_device_memory(error):
            raise
        raise _lost_rank() from error


def is_lost_rank(error: Exception) -> bool:
    """Whether torch means a lost rank, in code where errors may be anything: gloo's have no type of their own."""
    if not isinstance(error, RuntimeError):
        return False
    from torch.distributed import DistError

    return isinstance(error, DistError) or "gloo" in str(error)


def _lost_rank() -> TrainerError:
    return TrainerError(Reason.INTERRUPTED, "another process of this attempt has ended")
