"""Environment variables that torch reads on import: for training, for serving, and for the user's own code.

Imports no torch, and must be called before anything does.
"""

import os

_KERNELS = "48"
"""Size of the caches of compiled products. A layer has about 15 in each direction, an encoder-decoder's 25."""

_SPINS = "3000"
"""How often an idle thread polls for work before it sleeps: some tens of microseconds."""


def prepare(threads: int) -> None:
    """As many threads as the CPU quota allows, with little spinning, and small kernel caches.

    Threads that spin while they wait burn the quota and starve other processes of the node. Threads that sleep at once
    must be woken for every product and every sum, which on a virtual machine takes as long as many of these: a fifth of
    a small model's time. A step is over soon, so threads poll for a while and then sleep. On a CPU oneDNN compiles a
    16-bit product for each size of a pass, half a megabyte each, and caches the last 1,024: rows of all lengths fill
    600 MB that are never reused. Compiling one takes a millisecond. GPU memory is allocated in expandable segments:
    otherwise the blocks freed by passes of one length are too small for those of another.
    """
    os.environ["OMP_NUM_THREADS"] = str(threads)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", _SPINS)
    os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    for name in ("LRU_CACHE_CAPACITY", "ONEDNN_PRIMITIVE_CACHE_CAPACITY"):  # torch's own, and oneDNN's below it
        os.environ.setdefault(name, _KERNELS)
