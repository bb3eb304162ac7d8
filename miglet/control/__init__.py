"""The control socket: JSON-RPC for `miglet-ctl`, served from the arbiter's loop.

What can be asked is not decided here; see `miglet.agent.control_api`.
"""
