"""The reference controller: the other side of the contract, on one machine.

It stands apart: it reads the contract's files and the tree of errors, and nothing of
the agent imports it.
"""
