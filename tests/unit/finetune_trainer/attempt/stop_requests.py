"""How a run is asked to stop, and what it then says."""

import signal

from finetune_api.exit_codes import ExitCode


def terminate(number: signal.Signals = signal.SIGTERM) -> None:
    signal.raise_signal(number)


STOPPED = (ExitCode.INTERRUPTED, "Interrupted")
