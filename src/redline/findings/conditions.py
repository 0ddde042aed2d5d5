"""The conditions of a run in words, and what of them differs between two runs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from redline.findings.wording import unique
from redline.study.rows import Study

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
_SETTINGS = ("rounds", "repeats", "confirm", "seed", "threads", "window_s", "warmup_s")


@dataclass(frozen=True, slots=True)
class Difference:
    """A condition that is not the same in both runs."""

    what: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.what} was {self.before}, is {self.after}"


def same_machine(before: Study, after: Study, device: str) -> bool:
    """Whether the hardware is the same: the processor and how much of it may be used, or the GPU."""
    conditions = [conditions_of(study) for study in (before, after)]
    parts = ("GPU",) if device == "cuda" else ("processor", "usable cores", "container's CPU limit")
    return all(conditions[0].get(part) == conditions[1].get(part) for part in parts)


def differences_of(before: Study, after: Study) -> tuple[Difference, ...]:
    """Every condition that is not the same in both."""
    was, now = conditions_of(before), conditions_of(after)
    return tuple(
        Difference(what, was.get(what, "unknown"), now.get(what, "unknown"))
        for what in unique([*was, *now])
        if was.get(what) != now.get(what)
    )


def conditions_of(study: Study) -> dict[str, str]:
    """Everything that may explain a difference, in words; several machines are listed."""
    run = study.run
    machines = [node.machine for node in study.nodes.values()] or [run.machine]
    places = [machine.environment for machine in machines]
    found = {what: _listed(getattr(place, name) for place in places) for what, name in _MACHINE.items()}
    gpus = [gpu for machine in (*machines, run.machine) for gpu in machine.gpus]
    found |= {what: _listed(getattr(gpu, name) for gpu in gpus) for what, name in _GPU.items() if gpus}
    found |= {"redline": run.redline, "commit": str(run.commit)}
    for values in ([place.versions for place in places], [place.variables for place in places]):
        for name in unique(name for one in values for name in one):
            found.setdefault(name, _listed(one.get(name) for one in values))
    for row in study.rows:  # TensorRT and others that were found where they ran
        for name, version in row.versions.items():
            found.setdefault(name, version)
    found |= {name: str(getattr(run.settings, name)) for name in _SETTINGS}
    found |= {f"baseline on {device}": name for device, name in run.baselines.items()}
    found["images"] = str(run.data.source)
    return found | {f"preprocessing of {model.name}": str(model.preprocess) for model in run.models}


def _listed(values: Iterable[object]) -> str:
    texts = [",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value) for value in values]
    return "; ".join(unique(texts))
