"""The parent process: start, daemon, arbiter, status, event delivery, control API."""
