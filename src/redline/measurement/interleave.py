"""Time many workers in interleaved rounds, so that a drift of the machine hits all of them alike."""

from __future__ import annotations

import random
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass

from redline.core.errors import WorkerError
from redline.measurement.worker import Worker


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """The raw samples of one variant in one round."""

    variant: str
    batch: int
    round: int
    samples_s: list[float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """How long and how often.

    Attributes:
        rounds: How many times each variant has its turn.
        window_s: How long a turn is, at least; many short turns see through the noise of a busy machine better than
            a few long ones.
        min_calls: How many calls a turn has, at least.
        seed: Of the order within each round.
    """

    rounds: int = 60
    window_s: float = 0.05
    min_calls: int = 2
    seed: int = 0


def interleave(
    workers: Mapping[str, Worker],
    batch: int,
    schedule: Schedule,
    *,
    done: Container[tuple[str, int]] = frozenset(),
    on_window: Callable[[Window], None],
    on_failure: Callable[[str, str], None],
) -> None:
    """Give each worker one turn a round, in an order drawn anew each round; one worker runs at a time.

    Args:
        workers: Prepared workers by variant.
        batch: The name that they were prepared under.
        schedule: Rounds, windows, seed.
        done: Pairs of variant and round that are measured already and are left out.
        on_window: Called with each window as soon as it is measured.
        on_failure: Called with a variant and the reason when its worker fails; it takes no further turns.
    """
    alive = dict(workers)
    order = random.Random(schedule.seed)  # noqa: S311 (an order, not a secret)
    for index in range(schedule.rounds):
        names = list(workers)
        order.shuffle(names)
        for name in names:
            if name not in alive or (name, index) in done:
                continue
            try:
                samples = alive[name].time(batch, duration_s=schedule.window_s, min_calls=schedule.min_calls)
            except WorkerError as error:
                del alive[name]
                on_failure(name, str(error))
                continue
            on_window(Window(variant=name, batch=batch, round=index, samples_s=samples))
