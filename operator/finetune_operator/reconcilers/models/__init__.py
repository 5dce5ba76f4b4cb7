"""FineTunedModel: its versions, and what happens to their weights."""
