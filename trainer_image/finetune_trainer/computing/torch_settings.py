"""What torch reads from the environment when it is imported: for training, for serving, and for the user's own code.

It imports no torch, and has to come before whoever does.
"""

import os

_KERNELS = "48"
"""Compiled products that are kept of each kind. A layer has about 15 each way, that of an encoder-decoder 25."""

_SPINS = "3000"
"""How often a thread looks for its next piece of work before it sleeps: some tens of microseconds."""


def prepare(threads: int) -> None:
    """Threads as the CPU quota allows, none of them spinning for long; and no hoard of compiled kernels.

    Threads that spin as long as they wait burn the quota and starve whatever else runs on the node. Those that sleep at
    once are woken for every product and every sum, which on a virtual machine takes as long as many of them: a fifth
    of a small model's time. A step is soon over, so they look a while and then sleep. On a CPU oneDNN
    compiles a product in 16 bits for each size of a pass, half a megabyte each, and keeps the last 1,024: rows of all
    lengths fill 600 MB that nothing asks for again. Compiling one takes a millisecond. A GPU's memory is taken in
    segments that grow, or what passes of one length leave free is too small for those of another.
    """
    os.environ["OMP_NUM_THREADS"] = str(threads)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", _SPINS)
    os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    for name in ("LRU_CACHE_CAPACITY", "ONEDNN_PRIMITIVE_CACHE_CAPACITY"):  # torch's own, and oneDNN's below it
        os.environ.setdefault(name, _KERNELS)
