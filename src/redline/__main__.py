"""``python -m redline``."""

from redline.cli import entry_point

entry_point()
