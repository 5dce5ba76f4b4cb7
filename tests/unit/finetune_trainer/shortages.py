"""Out-of-memory errors of GPU and CPU, as observed or from the libraries' sources."""

import torch

ERRORS = {
    "torch": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
    "driver": torch.AcceleratorError("CUDA error: out of memory\nSearch for `cudaErrorMemoryAllocation' in https://x"),
    "cuBLAS": RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    "Triton": RuntimeError("Triton Error [CUDA]: out of memory"),
}

OF_THE_MACHINE = {
    "Python": MemoryError(),
    "torch": RuntimeError(
        "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to "
        "allocate 281474976710656 bytes. Error code 12 (Cannot allocate memory)"
    ),
    "a map": OSError(12, "Cannot allocate memory"),
    "a library": ImportError("libtorch_cpu.so: failed to map segment from shared object"),
    "a library's end": ImportError("libx.so: cannot create shared object descriptor: Cannot allocate memory"),
}
