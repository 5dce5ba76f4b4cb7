"""Base models: found, fetched, loaded, known again, adapted, and what tuning them takes of memory.

    base_place ─▶ model_cache, base_fetch     where the base is: in the cache, or brought from its hub
    base_alike, base_probe                    whether it is the same one on each rank, and when it is served
    base_refusals                             that it cannot be used, or not as the job asks
    kinds                                     which kinds there are, and those whose fields and tensors are known
    validation ─▶ weight_files                its files held against each other and the job before anything is loaded
    base_model ─▶ loaded_weights, corrected   loaded; what libraries have made up, left out or left wrong
      tokenizer_file                          with its tokenizer
      adapters, generation                    adapters put on it; how it generates once it is tuned
    memory_fit ─▶ memory ─▶ model_shape       whether there is the memory that tuning takes of it

What is told before anything is loaded needs no torch: `check` has none.
"""
