"""The lifecycle of the machine: a pure state machine, as a table of rules."""
