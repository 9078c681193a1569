"""What goes wrong with a cluster."""


class ClusterError(Exception):
    """A cluster cannot be put together, started or reached; the message says which and why."""
