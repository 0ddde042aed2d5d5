"""The conditions of a grid's run in words, and what of them differs between two runs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from redline.grid.derive import unique
from redline.grid.rows import GridStudy

_MACHINE = {
    "processor": "cpu",
    "instructions": "flags",
    "usable cores": "cores_available",
    "memory": "memory_bytes",
    "container's CPU limit": "container_cpu_limit",
    "container's memory limit": "container_memory_bytes",
    "frequency governor": "governor",
    "turbo": "turbo",
    "hypervisor": "hypervisor",
    "system": "os",
    "kernel": "kernel",
    "Python": "python",
}
_GPU = {"GPU": "name", "GPU driver": "driver", "CUDA": "cuda", "GPU memory": "memory_bytes"}
_SETTINGS = ("rounds", "repeats", "seed", "threads", "window_s", "warmup_s")


@dataclass(frozen=True, slots=True)
class Difference:
    """A condition that is not the same in both runs."""

    what: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.what} was {self.before}, is {self.after}"


def same_machine(before: GridStudy, after: GridStudy, device: str) -> bool:
    """Whether the hardware is the same: the processor and how much of it may be used, or the GPU."""
    conditions = [conditions_of(study) for study in (before, after)]
    parts = ("GPU",) if device == "cuda" else ("processor", "usable cores", "container's CPU limit")
    return all(conditions[0].get(part) == conditions[1].get(part) for part in parts)


def differences_of(before: GridStudy, after: GridStudy) -> tuple[Difference, ...]:
    """Every condition that is not the same in both."""
    was, now = conditions_of(before), conditions_of(after)
    return tuple(
        Difference(what, was.get(what, "unknown"), now.get(what, "unknown"))
        for what in unique([*was, *now])
        if was.get(what) != now.get(what)
    )


def conditions_of(study: GridStudy) -> dict[str, str]:
    """Everything that may explain a difference, in words; several machines are listed."""
    run = study.run
    places = [node.get("environment") or {} for node in study.nodes.values()] or [run.get("environment") or {}]
    found = {what: _listed(place.get(name) for place in places) for what, name in _MACHINE.items()}
    gpus = [gpu for place in (*places, run.get("environment") or {}) for gpu in place.get("gpus") or ()]
    found |= {what: _listed(gpu.get(name) for gpu in gpus) for what, name in _GPU.items() if gpus}
    found |= {"redline": str(run.get("redline")), "commit": str(run.get("commit"))}
    for kind in ("versions", "variables"):
        for name in unique(name for place in places for name in place.get(kind) or {}):
            found.setdefault(name, _listed((place.get(kind) or {}).get(name) for place in places))
    settings = run.get("settings", {})
    found |= {name: str(settings.get(name)) for name in _SETTINGS}
    found |= {f"baseline on {device}": str(name) for device, name in (settings.get("baseline") or {}).items()}
    found["images"] = str((run.get("data") or {}).get("source"))
    found |= {f"preprocessing of {m['name']}": str(m.get("preprocess")) for m in run.get("models", ())}
    return found


def _listed(values: Iterable[Any]) -> str:
    texts = [",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value) for value in values]
    return "; ".join(unique(texts))
