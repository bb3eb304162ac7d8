"""The runner: installed, registered, launched and ended.

Nothing here knows the lifecycle or the network; what outlives MIGlet is started by the
launcher alone.
"""
