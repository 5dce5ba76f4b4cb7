"""The contract: kinds, the trainer's job and reports, reasons and exit codes. Imports nothing of this project."""

RELEASE = "0.1.0"
"""Operator, trainer and chart are released together; both pyproject.toml read it from here."""
