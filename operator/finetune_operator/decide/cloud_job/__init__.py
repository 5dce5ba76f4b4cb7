"""A FineTuneJob at a provider outside of the cluster: steps before those of `job`, costs, evaluation. Pure."""
