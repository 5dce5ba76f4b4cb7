"""A ModelDeployment: what serves it, on the cluster or at a provider, and what that costs. Pure."""
