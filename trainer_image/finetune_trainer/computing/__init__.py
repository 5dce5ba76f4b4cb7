"""How a model computes on this machine: our own attention and layers, multi-process training, torch's settings.

    ranks, sharding                           processes that train together, and FSDP
    attention ─▶ cpu_attention                attention within the documents of a packed row
    adapted_linear, frozen_norm               fused layers with a frozen base
    compiled_layers ─▶ c_compiler             compiled layers, and whether this machine can compile
    four_bit                                  QLoRA's base
    limits, gpus, heap, garbage               available CPUs and memory, and freeing memory
    torch_settings                            environment variables that torch reads on import

Knows tensors and processes, but neither jobs nor data.
"""
