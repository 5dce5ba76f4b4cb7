"""Training side by side: the trainer, TRL and transformers' Trainer on the same rows, each in its own process."""
