"""The whole life of a model at a provider outside of the cluster, step by step, for every provider alike."""
