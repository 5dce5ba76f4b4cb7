"""Imported only by the fork server: modules that every rank would otherwise import itself."""

import gc
import importlib

for name in (
    "matplotlib.figure",
    "peft",
    "transformers.models.llama.modeling_llama",
    "finetune_trainer.training.step_trainer",
):
    importlib.import_module(name)
gc.collect()
gc.freeze()
