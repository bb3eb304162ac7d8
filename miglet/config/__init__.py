"""Configuration: one schema, its layers, and the settings that come of them.

This package file imports nothing: the daemon's parent process reads ``settings``
alone, and must not pay for YAML and JSON Schema.
"""
