"""What the cloud says of this machine: identity, settings, tokens, its coming end.

One class a cloud, in a module of its own, and one entry of ``clouds.CLOUDS``.
"""
