"""The documentation's site: ``make docs``. The code prints its reference pages."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

import reference_pages  # noqa: E402

from miglet import __version__  # noqa: E402

project = "MIGlet"
author = "The MIGlet maintainers"
copyright = "2026, The MIGlet maintainers"
version = release = __version__

exclude_patterns = ["build", "man/miglet.yaml.5.rst"]
html_theme = "alabaster"
html_theme_options = {"description": "The agent of an ephemeral CI machine"}
html_show_sourcelink = True
nitpicky = True

# Literal blocks are shell, YAML, HCL and output: nothing is guessed.
highlight_language = "none"

# `make linkcheck`: what needs a login, or stands for something else.
linkcheck_ignore = [r"https?://(localhost|127\.0\.0\.1|controller\.example).*"]

reference_pages.write(HERE / "reference")
