"""The state of the machine: what it is, how it changes, and where it is kept."""
