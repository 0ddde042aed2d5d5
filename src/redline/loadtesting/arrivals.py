"""When requests are to be sent: fixed beforehand, so that a slow server cannot hold its next request back."""

from __future__ import annotations

import random
from typing import Literal

from redline.core.errors import InputError


def schedule(arrivals: Literal["constant", "poisson"], *, rate: float, seconds: float, seed: int) -> list[float]:
    """Seconds from the start at which each of ``rate * seconds`` requests is due, rising.

    ``poisson`` is a Poisson process given its number of arrivals: these lie independently and evenly over the time
    (Ross, "Introduction to Probability Models", theorem 5.2). So every window of a rate is offered the same number,
    and targets can be held against each other without the chance of the count.

    >>> schedule("constant", rate=4, seconds=1, seed=0)
    [0.0, 0.25, 0.5, 0.75]
    >>> len(schedule("poisson", rate=40, seconds=2, seed=0))
    80

    Raises:
        InputError: a rate or time that is not positive.
    """
    if not (rate > 0 and seconds > 0):
        raise InputError(f"got {rate} requests/s for {seconds} s, expected both above 0")
    count = max(1, round(rate * seconds))
    if arrivals == "constant":
        return [index / rate for index in range(count)]
    random_ = random.Random(seed)  # noqa: S311 (arrivals, not a secret)
    return sorted(random_.random() * seconds for _ in range(count))
