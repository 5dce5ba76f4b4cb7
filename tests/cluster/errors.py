"""Errors of the throw-away cluster: messages say what failed, which log shows it, and what to do."""


class ClusterError(RuntimeError):
    """Something the cluster needs is absent or did not start."""


class MachineError(ClusterError):
    """A permission or package is missing that only the machine's owner can provide: a retry would not help."""
