"""A FineTuneJob: one ordered chain of small steps (`steps`), and what they are made of. Pure."""
