"""What processes tell each other and the controller: codec, facts, orders, events."""
