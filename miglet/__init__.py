"""MIGlet: the agent inside every ephemeral CI machine of a managed instance group."""

__version__ = "0.1.0"
