"""Tell which of several processes this one is, as torchrun says in the environment. Without torchrun there is one."""

import datetime
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist


@dataclass(frozen=True)
class Ranks:
    """This process's number among the processes that share a run."""

    rank: int
    """From 0."""
    count: int
    """How many processes there are."""

    def barrier(self) -> None:
        """Wait until all processes are here. If one dies, torchrun ends the others."""
        if self.count > 1:
            dist.barrier()

    def agree(self, value: str) -> str:
        """Return the first process's `value` in all of them."""
        values = [value]
        if self.count > 1:
            dist.broadcast_object_list(values)
        return values[0]


@contextmanager
def joined() -> Iterator[Ranks]:
    """Join the processes that torchrun started.

    They share a file system. Apart from `agree`, no data passes between them, only barriers.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Ranks(0, 1)
        return
    # a rank waits for the slowest one as long as that takes
    dist.init_process_group("gloo", timeout=datetime.timedelta(days=30))
    try:
        yield Ranks(dist.get_rank(), count)
    finally:
        dist.destroy_process_group()


def local_device(device: str) -> str:
    """Return the device of this process: where a machine runs several processes, each has the GPU of its local rank."""
    local = os.environ.get("LOCAL_RANK")
    if device != "cuda" or local is None:
        return device
    torch.cuda.set_device(int(local))
    return f"cuda:{local}"
