"""A double of GitHub's `actions/runner`, for tests and benchmarks.

Everything in this package needs the standard library only: the installed scripts import
it under another interpreter, in a clean environment and perhaps as another user.
"""

from tests.runner_double.double import Double, install, jitconfig
from tests.runner_double.plan import FAST

__all__ = ["FAST", "Double", "install", "jitconfig"]
