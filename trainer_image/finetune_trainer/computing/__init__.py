"""How a model computes on this machine: attention and layers of our own, ranks that share it, what torch is told.

    ranks, sharding                           processes that train together, and share a model out
    attention ─▶ cpu_attention                attention within the documents of a packed row
    adapted_linear, frozen_norm               layers whose base stays as it is, as one step of the graph
    compiled_layers ─▶ c_compiler             layers compiled, and whether this machine can do that
    four_bit                                  QLoRA's base
    limits, gpus, heap, garbage               what there is of processors and memory, and what is given back
    torch_settings                            what torch reads when it is imported

All of it knows tensors and processes, and neither jobs nor data.
"""
