"""Requests a run to stop, and reads what it then reports."""

import signal

from finetune_api.exit_codes import ExitCode


def terminate(number: signal.Signals = signal.SIGTERM) -> None:
    signal.raise_signal(number)


STOPPED = (ExitCode.INTERRUPTED, "Interrupted")
