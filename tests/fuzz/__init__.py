"""Fuzzing of everything that parses bytes of strangers; ``make fuzz``."""
