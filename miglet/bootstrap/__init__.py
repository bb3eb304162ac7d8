"""The checks of a machine before it may take jobs, and the report of what they found.

`report` runs them all side by side within ``bootstrap.timeout``; `registry` says what a
check is, and each module here holds the checks of one kind.
"""

from miglet.bootstrap import credentials, disk, docker, machine, network, runner
from miglet.bootstrap.framework import CHECKS, report, table

__all__ = [
    "CHECKS",
    "credentials",
    "disk",
    "docker",
    "machine",
    "network",
    "report",
    "runner",
    "table",
]
