"""Forking, watching and restarting the workers, and the Linux beneath."""
