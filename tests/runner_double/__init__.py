"""A double of GitHub's `actions/runner`, for tests and benchmarks.

Everything in this package needs the standard library only: the installed scripts import
it under another interpreter, in a clean environment and perhaps as another user.
"""
