"""The one error of the throw-away cluster: its message says what failed, which log shows it, and what to do."""


class ClusterError(RuntimeError):
    """Something the cluster needs is absent or did not start."""
