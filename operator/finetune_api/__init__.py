"""The contract: kinds, the trainer's job and reports, reasons and exit codes. Knows nobody."""
