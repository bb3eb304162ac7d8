"""How all tests are run."""

from __future__ import annotations

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
