"""The checks of a machine before it may take jobs, and the report of what they found.

`framework` says what a check is and runs them all side by side within
``bootstrap.timeout``. Each module imported here registers the checks of one kind.
"""

from miglet.bootstrap import credentials, disk, docker, machine, network, runner

__all__ = ["credentials", "disk", "docker", "machine", "network", "runner"]
