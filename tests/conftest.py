"""How all tests are run."""

from __future__ import annotations

import signal

from hypothesis import HealthCheck, settings

# How quick a machine is, is not what these tests are about: it may be busy. And the
# checkout may be there to be read only.
settings.register_profile(
    "patient",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    database=None,
)
settings.load_profile("patient")

# A shell has what it runs in the background ignore SIGINT, and so would all we start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
