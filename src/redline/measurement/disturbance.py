"""How much of a window's time other work took, and how much is known of a comparison."""

from __future__ import annotations

from dataclasses import dataclass

from redline.measurement.stats import Ratio


@dataclass(frozen=True, slots=True, kw_only=True)
class Disturbance:
    """What the kernel says of one window; None where it does not say.

    Attributes:
        run_delay: Seconds that the worker's threads waited for a core, over the window's seconds times its threads.
        steal: Share of all processor time that the hypervisor gave to others.
        pressure: Share of the window in which some task on the machine waited for a core (PSI, cpu, some).
        switches: Involuntary context switches of the worker.
    """

    run_delay: float | None = None
    steal: float | None = None
    pressure: float | None = None
    switches: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What a row's ratio rests on.

    Attributes:
        processes: Generations of fresh processes in which both sides were measured.
        confirmed: Whether they are other processes than those by which the row was chosen.
        rounds: Rounds in all of them.
        kept: Rounds that other work did not disturb.
        calls_per_window: Of the slower side, typically.
        window_s: How long a window was.
        run_delay: The median over windows, of the worse side.
        steal: The median over windows.
        control: The baseline's second process against the first, where it was measured beside them.
        stable: Whether all their warm-ups settled.
    """

    processes: int
    confirmed: bool
    rounds: int
    kept: int
    calls_per_window: float
    window_s: float
    run_delay: float | None = None
    steal: float | None = None
    control: Ratio | None = None
    stable: bool = True
