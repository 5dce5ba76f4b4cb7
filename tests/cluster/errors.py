"""The errors of the throw-away cluster: the message says what failed, which log shows it, and what to do."""


class ClusterError(RuntimeError):
    """Something the cluster needs is absent or did not start."""


class MachineError(ClusterError):
    """What only the machine's owner gives is absent, a right or a package: to try again changes nothing."""
