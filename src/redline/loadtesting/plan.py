"""Which loads a test has, in which order the targets take their turns, and when requests are to be sent.

That is fixed beforehand, so that a slow server cannot hold its next request back.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from redline.core.errors import InputError
from redline.loadtesting.results import Arrivals, Load, Tool

#: Users of the closed loops that look for how much a target can do.
LOOK_USERS = (1, 2, 4, 8)
#: Rates of the open loops that look for the knee, as shares of what a closed loop reached.
LOOK_SHARES = (0.5, 0.7, 0.8, 0.9, 1.0, 1.1)
#: A target is not offered more than this share of what it reached.
_MOST_SHARE = 1.15
#: Rates closer than this are one rate.
_SAME_RATE = 0.04


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One target's turn under one load in one round."""

    load: Load
    target: int
    round: int


def given_loads(rates: Sequence[float], users: Sequence[int], *, arrivals: Arrivals, tool: Tool) -> list[Load]:
    """The loads that the user named; none stands for the search for the knee.

    Raises:
        InputError: a rate or number that is not positive, or a rate for a tool that has users only.
    """
    if any(not 0 < rate < 1e6 for rate in rates):
        raise InputError(f"got rates {_list(rates)}, expected requests per second above 0")
    if any(not 0 < count <= 4096 for count in users):
        raise InputError(f"got users {_list(users)}, expected 1 to 4096 each")
    if rates and tool != "open":
        raise InputError(
            f"got --rate with {tool}, whose users wait for their answers; leave --tool out, or give --users"
        )
    closed = [Load(mode="closed", users=count) for count in dict.fromkeys(users)]
    return [*closed, *(Load(mode="open", arrivals=arrivals, rate=rate) for rate in dict.fromkeys(rates))]


def look_users() -> list[Load]:
    """The closed loops that a search begins with."""
    return [Load(mode="closed", users=count) for count in LOOK_USERS]


def look_rates(best: Sequence[float], *, arrivals: Arrivals) -> dict[Load, tuple[int, ...]]:
    """The open loops that a search goes on with, and the targets that each is for.

    Every rate is offered to all targets that can about reach it, so that they can be held against each other; none is
    offered much more than it can do.

    Args:
        best: What each target reached in a closed loop, requests per second.
        arrivals: Of the open loops.

    >>> found = look_rates([100.0, 50.0], arrivals="constant")
    >>> [(load.rate, targets) for load, targets in found.items()][:2], list(found.values())[-1]
    ([(25.0, (0, 1)), (35.0, (0, 1))], (0,))
    """
    rates: list[float] = []
    for rate in sorted(_short(share * most) for most in best for share in LOOK_SHARES if most > 0):
        if not rates or rate > rates[-1] * (1 + _SAME_RATE):
            rates.append(rate)
    return {
        Load(mode="open", arrivals=arrivals, rate=rate): tuple(
            target for target, most in enumerate(best) if rate <= _MOST_SHARE * most
        )
        for rate in rates
    }


def turns(loads: Mapping[Load, Sequence[int]], *, rounds: int, seed: int) -> Iterator[Turn]:
    """All turns, round by round, so that a drift of the machine hits every load and an interruption spares none.

    Within a load targets take their turns one after the other, in an order drawn anew each time.
    """
    order = random.Random(seed)  # noqa: S311 (an order, not a secret)
    for index in range(rounds):
        for load, targets in loads.items():
            drawn = list(targets)
            order.shuffle(drawn)
            for target in drawn:
                yield Turn(load=load, target=target, round=index)


def schedule(arrivals: Arrivals, *, rate: float, seconds: float, seed: int) -> list[float]:
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


def expected_s(loads: Mapping[Load, Sequence[int]], *, rounds: int, window_s: Callable[[Load], float]) -> float:
    """About how long the turns take."""
    return rounds * sum(window_s(load) * len(targets) for load, targets in loads.items())


def _short(rate: float) -> float:
    return float(f"{rate:.3g}")


def _list(values: Sequence[float]) -> str:
    return ",".join(f"{value:g}" for value in values)
