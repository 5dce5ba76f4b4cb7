"""What runs and serves models: one file per provider behind the protocols of ports.py."""
