"""The durable journal of events, executed commands and the machine's state."""
