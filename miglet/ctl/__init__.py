"""``miglet-ctl``: it stands apart, and imports nothing of the agent but its version."""
