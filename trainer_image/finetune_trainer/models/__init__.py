"""Base models: located, fetched, validated, loaded and adapted, and the memory that tuning them takes.

    base_place ─▶ model_cache, base_fetch     where the base model is: in the cache, or fetched from its hub
    base_alike, base_probe                    whether it is the same on each rank, and when it is served
    base_refusals                             refusals of models that cannot be used, or not as the job asks
    kinds                                     supported model types, and those whose fields and tensors are known
    validation ─▶ weight_files                checks its files against each other and the job before loading anything
    base_model ─▶ loaded_weights, corrected   loads it; corrects what libraries made up, left out or got wrong
      tokenizer_file                          with its tokenizer
      adapters, generation                    adds adapters; generation settings of the tuned model
    memory_fit ─▶ memory ─▶ model_shape       whether the memory suffices for tuning it

What can be checked before loading needs no torch, which `check` does not have.
"""
