"""What runs and serves models: a package per provider behind the protocols of ports.py; beside them what all share."""
