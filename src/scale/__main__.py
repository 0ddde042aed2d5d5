"""``python -m scale``."""

from scale.cli import entry_point

entry_point()
