"""Is an engine at home here?"""

from __future__ import annotations

from collections.abc import Mapping

from redline.core.artifact import Engine
from redline.core.errors import EngineMismatchError


def check_platform(engine: Engine, here: Mapping[str, str]) -> None:
    """Refuse an engine that was made for another platform.

    Raises:
        EngineMismatchError: names the first thing that differs.
    """
    for key, value in here.items():
        made_for = engine.platform.get(key)
        if made_for != value:
            raise EngineMismatchError(
                f"{engine.path.name} was compiled for {key} {made_for!r}, this is {value!r}; build it again"
            )
