"""A base model's files held against each other and against the job, before anything is loaded. Needs no torch.

    config_file                               config.json, `check`, `train` and `serve` alike:
      config_values, generation_file          what no config.json and no generation_config.json may say
      tensor_names                            the names of tensors taken apart
      required_tensors, optional_tensors      which tensors there have to be
      experts                                 the same of a mixture's experts
      config_shapes ─▶ tensor_shapes          how wide they have to be, and how many layers there are
    target_names, vocabulary                  what the job asks of layers, and tokens of its rows

What is wrong is a refusal of `base_refusals`.
"""
