"""What has been worked out about a slide once, kept for as long as the slide is."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast
from weakref import WeakKeyDictionary

from scale.slides.base import Slide

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class _Known:
    lock: Any = field(default_factory=threading.RLock)
    values: dict[Hashable, object] = field(default_factory=dict)


_LOCK = threading.Lock()
_OF_SLIDES: WeakKeyDictionary[Slide, _Known] = WeakKeyDictionary()


def once(slide: Slide, key: Hashable, make: Callable[[], Value]) -> Value:
    """What ``make`` gives, called once per slide and key; of threads that ask at a time one works, the others wait.

    Args:
        slide: An open slide.
        key: What is asked, with everything that the answer depends on.
        make: May itself ask for other keys of the same slide. Its value is shared: nobody changes it.
    """
    with _LOCK:
        known = _OF_SLIDES.setdefault(slide, _Known())
    with known.lock:
        if key not in known.values:
            known.values[key] = make()
        return cast("Value", known.values[key])
