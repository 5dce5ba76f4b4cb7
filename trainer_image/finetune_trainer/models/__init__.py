"""Base models: found, fetched, loaded, known again, adapted, and what tuning them takes of memory.

    base_place ─▶ model_cache, base_fetch     where the base is: in the cache, or brought from its hub
    base_alike, base_probe                    whether it is the same one on each rank, and when it is served
    base_refusals                             that it cannot be used, or not as the job asks
    kinds                                     which kinds there are, and those whose fields and tensors are known
    config_file                               its files held against each other before anything is loaded:
      config_values, generation_file          what no config.json and no generation_config.json may say
      weight_files, tensor_names              headers of the weights, and the names of tensors taken apart
      required_tensors, optional_tensors      which tensors there have to be
      experts                                 the same of a mixture's experts
      config_shapes ─▶ tensor_shapes          how wide they have to be, and how many layers there are
      target_names, vocabulary                what the job asks of layers, and tokens of its rows
    base_model ─▶ loaded_weights, corrected   loaded; what libraries have made up, left out or left wrong
      tokenizer_file                          with its tokenizer
      adapters, generation                    adapters put on it; how it generates once it is tuned
    memory_fit ─▶ memory ─▶ model_shape       whether there is the memory that tuning takes of it

What is told before anything is loaded needs no torch: `check` has none.
"""
