"""A ModelDeployment: what answers in its name, on the cluster or at a provider, and what it costs. Pure."""
