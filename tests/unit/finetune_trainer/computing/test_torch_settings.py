"""What training and serving tell torch before it is imported."""

import os
import subprocess
import sys

from finetune_trainer.computing import torch_settings

MANY_SIZES = """
import torch

def pages():
    return int(open("/proc/self/statm").read().split()[1])

weight = torch.ones(32, 32, dtype=torch.bfloat16)
for size in range(2, 402):
    torch.ones(size, 32, dtype=torch.bfloat16) @ weight
    if size == 201:
        before = pages()
print(pages() - before)
"""


def test_products_of_ever_other_sizes_do_not_fill_the_memory(monkeypatch):
    """A CPU that multiplies no bfloat16 compiles no kernels, and passes in any case."""
    for name in ("LRU_CACHE_CAPACITY", "ONEDNN_PRIMITIVE_CACHE_CAPACITY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    torch_settings.prepare(1)
    child = [sys.executable, "-c", MANY_SIZES]
    done = subprocess.run(child, capture_output=True, text=True, check=True, env=os.environ)
    assert int(done.stdout) * os.sysconf("SC_PAGE_SIZE") < 20 * 2**20


SHORT_STEPS = """
import time
import torch

one = torch.ones(2**16)
one.add_(1)
before = time.process_time()
for _ in range(50):
    one.add_(1)
    time.sleep(0.02)
print(time.process_time() - before)
"""


def test_threads_that_have_nothing_to_do_soon_sleep(monkeypatch):
    """In a second of waiting between steps threads that look for work all along use up a second, or more."""
    monkeypatch.setattr(os, "environ", dict(os.environ))
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        os.environ.pop(name, None)
    torch_settings.prepare(2)
    child = [sys.executable, "-c", SHORT_STEPS]
    done = subprocess.run(child, capture_output=True, text=True, check=True, env=os.environ)
    assert float(done.stdout) < 0.5


def test_what_the_container_says_counts(monkeypatch):
    monkeypatch.setattr(os, "environ", {"LRU_CACHE_CAPACITY": "7", "GOMP_SPINCOUNT": "9"})
    torch_settings.prepare(3)
    assert os.environ["LRU_CACHE_CAPACITY"] == "7"
    assert os.environ["GOMP_SPINCOUNT"] == "9"
    assert os.environ["OMP_NUM_THREADS"] == "3"
