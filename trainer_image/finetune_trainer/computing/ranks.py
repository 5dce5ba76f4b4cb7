"""The processes that train one model together: who this one is, its share of a step, and what all of them agree on.

    rank 0      reads and checks the data, writes checkpoints, measures, reports; it tells the others
    each node   tokenises once: its first rank writes tokens, the others map them
    every rank  loads the model, learns from and validates its share; gradients are summed, so that weights stay equal

A model that no rank can hold alone is shared out among them: `sharding.py`.

Whatever may take long (data, checkpoints) is waited for on torchrun's store, without an end: a collective
would give up after minutes. Collectives are for steps alone. Starting the processes is `launch.py`'s business.
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
"""Seconds between two looks at the store."""

_TIMEOUT = timedelta(minutes=30)
"""Of a collective: more than ranks differ by within one step."""

_FINDING = timedelta(minutes=5)
"""Of the store, which is there before the ranks are: torchrun's agents have met on it."""

_BUCKET_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class World:
    """The ranks of one attempt. `ALONE` is the world of one, in which nothing is sent anywhere."""

    rank: int = 0
    size: int = 1
    store: "Store | None" = None
    per_node: int = 1
    """Ranks that share a pod, its folders and its CPUs."""
    _numbers: Iterator[int] = field(default_factory=count, init=False, repr=False, compare=False)
    """Of what is told: under a bare name, one that is told again, the answer before would still stand in the store."""

    @property
    def is_first(self) -> bool:
        """Whether this rank speaks and writes for all."""
        return self.rank == 0

    def share(self, rows: Sequence[int], lengths: "Sequence[int] | NDArray[np.int64]") -> list[int]:
        """This rank's rows of a step: dealt by length, there and back, so that all have about as many tokens."""
        by_length = sorted(range(len(rows)), key=lambda place: -lengths[place])
        turns = range(math.ceil(len(rows) / self.size))
        places = (turn * self.size + (self.size - 1 - self.rank if turn % 2 else self.rank) for turn in turns)
        return [rows[by_length[place]] for place in places if place < len(rows)] if self.size > 1 else list(rows)

    def tell(self, name: str, work: Callable[[], Any]) -> Any:
        """Have rank 0 do `work`; every rank gets what came of it, which JSON has to know.

        Every rank has to call it, in the same order; the name is for whoever looks into the store.

        Raises:
            TrainerError: Interrupted, rank 0 has ended.
        """
        if self.store is None:
            return work()
        key = self._key(name)
        if self.is_first:
            told = work()
            with _others_may_end():
                self.store.set(key, json.dumps(told))
            return told
        with _others_may_end():
            self._wait_for(key)
            return json.loads(self.store.get(key))

    def once_per_node(self, name: str, work: Callable[[], T], otherwise: Callable[[], T]) -> T:
        """Have the first rank of each node do `work`, and the others `otherwise` when it is done.

        Raises:
            TrainerError: Interrupted, one of them has ended.
        """
        if self.store is None or self.per_node == 1:
            return work()
        done = self._key(f"{name} on node {self.rank // self.per_node}")
        if self.rank % self.per_node == 0:
            made = work()
            with _others_may_end():
                self.store.set(done, "")
            return made
        with _others_may_end():
            self._wait_for(done)
        return otherwise()

    def _key(self, name: str) -> str:
        return f"{next(self._numbers)} {name}"

    def form(self) -> None:
        """Wait until every rank has come here, and open the ways between them: collectives work from now on.

        Raises:
            TrainerError: Interrupted, one of them has ended.
        """
        if self.store is None:
            return
        import torch
        from torch import distributed

        with _others_may_end():
            if self.store.add("arrived", 1) == self.size:
                self.store.set("all here", "")
            self._wait_for("all here")
            backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
            distributed.init_process_group(
                backend, store=self.store, rank=self.rank, world_size=self.size, timeout=_TIMEOUT
            )

    @contextmanager
    def formed(self) -> Iterator[None]:
        """Collectives work within the block; those too that a model makes whose layers are shared out.

        Raises:
            TrainerError: Interrupted, one of the ranks has ended.
        """
        self.form()
        try:
            yield
            self.anyone(False)  # one that has ended meanwhile is noticed here at once
            self._leave_together()
        except RuntimeError as error:
            if self.store is None or not is_end_of_line(error):
                raise
            raise _another_has_ended() from error
        self.part()

    def _leave_together(self) -> None:
        """Wait until all have read what came last: a way that closes takes along what is not read yet.

        The store may be rank 0's own: it is the last to leave.
        """
        if self.store is None:
            return
        from torch.distributed.elastic.utils.store import synchronize

        synchronize(self.store, b"", self.rank, self.size, "leaving", _TIMEOUT.total_seconds())

    def part(self) -> None:
        """Close the ways between the ranks: from now on each goes on alone."""
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

        with _others_may_end():
            summed = torch.tensor(numbers, dtype=torch.float64)
            distributed.all_reduce(summed)
        return tuple(summed.tolist())

    def anyone(self, asked: bool) -> bool:
        """Whether it holds on any rank."""
        return self.sums(float(asked))[0] > 0

    def most(self, number: int) -> int:
        """The largest number of all ranks."""
        if self.store is None:
            return number
        import torch
        from torch import distributed

        with _others_may_end():
            largest = torch.tensor(number)
            distributed.all_reduce(largest, op=distributed.ReduceOp.MAX)
        return int(largest)

    def equalise(self, parameters: Iterable["torch.Tensor"]) -> None:
        """Give every rank the values of rank 0."""
        if self.store is None:
            return
        from torch import distributed

        with _others_may_end():
            for value in parameters:
                distributed.broadcast(value.data, src=0)

    def sum_gradients(self, parameters: Iterable["torch.nn.Parameter"]) -> None:
        """Give every rank the sum of all ranks' gradients; one that no rank has stays away."""
        if self.store is None:
            return
        import torch
        from torch import distributed

        trained = [parameter for parameter in parameters if parameter.requires_grad]
        with _others_may_end():
            has = torch.tensor([parameter.grad is not None for parameter in trained], dtype=torch.int32)
            distributed.all_reduce(has)
            for parameter, holders in zip(trained, has.tolist(), strict=True):
                if holders and parameter.grad is None:  # this rank had no rows, or none that came through it
                    parameter.grad = torch.zeros_like(parameter)
            for bucket in _buckets([parameter.grad for parameter in trained if parameter.grad is not None]):
                flat = torch.cat([gradient.reshape(-1) for gradient in bucket])
                distributed.all_reduce(flat)
                for gradient, summed in zip(bucket, torch.split(flat, [one.numel() for one in bucket]), strict=True):
                    gradient.copy_(summed.view_as(gradient))

    def reseed(self, seed: int, step: int) -> None:
        """Have dropout draw by seed, step and rank: other ranks other masks, and no state to be kept for a restart."""
        if self.store is None:
            return
        import numpy as np  # here, for what only looks at a manifest imports this file too
        import torch

        torch.manual_seed(int(np.random.SeedSequence([seed, step, self.rank]).generate_state(1)[0]))

    def _wait_for(self, name: str) -> None:
        if self.store is None:
            return
        pause = _FIRST_PAUSE
        while not self.store.check([name]):  # its own wait hears no signals, and complains of each time-out
            time.sleep(pause)
            pause = min(2 * pause, _LAST_PAUSE)


ALONE = World()


def join(per_node: int = 1, environment: Mapping[str, str] = os.environ) -> World:
    """The world that torchrun has put this process into, else `ALONE`. No collective is possible before `form`.

    accelerate looks at the same variables and would share out the data itself: it must not see them.

    Raises:
        TrainerError: Interrupted, the first node has ended, and its store with it.
    """
    if int(environment.get("WORLD_SIZE", "1")) == 1:
        return ALONE
    from torch.distributed.rendezvous import rendezvous

    with _others_may_end():
        store, rank, size = next(iter(rendezvous("env://", timeout=_FINDING)))
    store.set_timeout(_TIMEOUT)
    for variable in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        os.environ.pop(variable, None)
    return World(rank, size, store, per_node)


def _buckets(gradients: Sequence["torch.Tensor"]) -> Iterator[list["torch.Tensor"]]:
    """Gradients of one kind that go out together: many small messages would wait for each other."""
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
def _others_may_end() -> Iterator[None]:
    """Torch has many words for an end of the line: all of them are RuntimeErrors, but so is a lack of memory."""
    try:
        yield
    except RuntimeError as error:
        if is_short_of_device_memory(error):
            raise
        raise _another_has_ended() from error


def is_end_of_line(error: Exception) -> bool:
    """Whether it is torch's word for it, where it may be anything: gloo's errors have no type of their own."""
    if not isinstance(error, RuntimeError):
        return False
    from torch.distributed import DistError

    return isinstance(error, DistError) or "gloo" in str(error)


def _another_has_ended() -> TrainerError:
    return TrainerError(Reason.INTERRUPTED, "another process of this attempt has ended")
