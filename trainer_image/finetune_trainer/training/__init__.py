"""Training: rows become optimizer steps and steps a tuned model, by the built-in recipe or by the user's own code."""
