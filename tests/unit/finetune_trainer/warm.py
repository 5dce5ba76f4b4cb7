"""Imported by the fork server alone: what every rank would else import and collect garbage over for itself."""

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
