"""Checks a base model's files against each other and against the job, before anything is loaded. Needs no torch.

    config_file                               config.json, the same in `check`, `train` and `serve`:
      config_values, generation_file          invalid values of config.json and generation_config.json
      tensor_names                            parses the names of tensors
      required_tensors, optional_tensors      which tensors must exist
      experts                                 the same for a mixture's experts
      config_shapes ─▶ tensor_shapes          their shapes, and the number of layers
    target_names, vocabulary                  the job's target modules, and the tokens of its rows

Problems are raised as refusals of `base_refusals`.
"""
