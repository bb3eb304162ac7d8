"""The controller as the agent sees it: one client, and what the two agreed on.

Only ``client`` knows addresses, only ``answers`` knows what a status means, and no
layer but the worker that calls the client tries a request a second time.
"""
