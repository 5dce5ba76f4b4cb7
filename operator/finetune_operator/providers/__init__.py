"""Training and serving providers: one package per provider behind the protocols of ports.py, and shared modules."""
