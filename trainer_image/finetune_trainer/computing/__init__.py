"""How a model computes on this machine: attention and layers of our own, ranks that share it, what torch is told."""
