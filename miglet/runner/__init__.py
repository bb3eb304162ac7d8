"""The runner: registered, launched, watched, understood and ended.

Nothing in here knows the lifecycle or the network; only the launcher starts programs.
"""
