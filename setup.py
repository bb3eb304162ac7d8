"""Entry for tools that still ask for setup.py; everything is in setup.cfg."""

from setuptools import setup

setup()
