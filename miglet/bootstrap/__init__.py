"""The start's first child: loads the configuration, then checks the machine."""
