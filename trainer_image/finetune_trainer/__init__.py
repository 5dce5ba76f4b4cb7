"""The trainer: checks data, tunes, measures and serves language models. Knows the operator only by finetune_api."""
