"""What a tune can be told."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from redline.core.errors import InputError
from redline.tuning.plan import OBJECTIVES, Objective
from redline.variants import DEVICES, Device, choose_variants

METHODS = ("minmax", "entropy", "percentile")
_LONGEST_WINDOW_S = 60.0
_LEAST = {"rounds": 3, "threads": 0, "calibration_samples": 1, "verification_samples": 1, "seed": 0}


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneOptions:
    """Options of :func:`redline.tune`.

    Attributes:
        device: Where the variants run: ``cpu``, or ``cuda`` for an NVIDIA GPU.
        batches: Batch sizes to measure; the recommendation is for the first.
        objective: What the recommendation should be best at.
        max_accuracy_drop: The gate: accuracy against labels may fall by this much, 0 to 1.
        min_agreement: The gate: the share of top-1 answers that must be the same, 0 to 1.
        threads: Of every runtime; 0 takes every core that this process may use.
        weights: A checkpoint for MODEL.
        size_px: Height and width of the images.
        variants: Names of the variants to try; empty for all.
        rounds: How often each variant has its turn.
        window_s: How long a turn is.
        calibration_samples: The most samples to calibrate on.
        verification_samples: The most samples to verify on.
        method: How static INT8 finds ranges: minmax, entropy or percentile.
        seed: Of orders, splits and random inputs.
        resume: Go on with an interrupted run in the same folder.
    """

    device: Device = "cpu"
    batches: tuple[int, ...] = (1,)
    objective: Objective = "latency"
    max_accuracy_drop: float = 0.01
    min_agreement: float = 0.99
    threads: int = 0
    weights: str | None = None
    size_px: tuple[int, int] | None = None
    variants: tuple[str, ...] = ()
    rounds: int = 60
    window_s: float = 0.05
    calibration_samples: int = 64
    verification_samples: int = 128
    method: str = "minmax"
    seed: int = 0
    resume: bool = False

    def __post_init__(self) -> None:
        if not self.batches or min(self.batches) < 1:
            raise InputError(f"batch is {self.batches}, expected sizes of at least 1")
        if self.objective not in OBJECTIVES:
            raise InputError(f"objective is {self.objective!r}, expected one of {', '.join(OBJECTIVES)}")
        for name in ("max_accuracy_drop", "min_agreement"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise InputError(f"{name} is {value}, expected 0 to 1")
        for name, least in _LEAST.items():
            if getattr(self, name) < least:
                raise InputError(f"{name} is {getattr(self, name)}, expected at least {least}")
        if not 0 < self.window_s <= _LONGEST_WINDOW_S:
            raise InputError(f"window is {self.window_s} s, expected more than 0 and at most {_LONGEST_WINDOW_S}")
        if self.method not in METHODS:
            raise InputError(f"method is {self.method!r}, expected one of {', '.join(METHODS)}")
        if self.device not in DEVICES:
            raise InputError(f"device is {self.device!r}, expected one of {', '.join(DEVICES)}")
        choose_variants(self.variants, self.device)

    def settings(self) -> dict[str, Any]:
        """What a resumed run must have in common with the interrupted one."""
        value = asdict(self)
        del value["resume"]
        return {key: list(item) if isinstance(item, tuple) else item for key, item in value.items()}
