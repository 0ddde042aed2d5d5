"""Under which conditions a study was measured, and how each figure of it was taken."""

from __future__ import annotations

from redline.core.host import Gpu
from redline.core.tensor import TensorSpec
from redline.findings.claims import SAME_BAND, WIDEST
from redline.measurement.environment import Environment
from redline.measurement.stats import CONFIDENCE
from redline.reporting import formats
from redline.reporting.facts import Group, gigabytes, in_words, known, label_of
from redline.study.config import StudyConfig
from redline.study.plan import confirm_rounds
from redline.study.records import ClockFacts, Data, Model
from redline.study.rows import Row, Study

_LOADERS = {
    "dummy": "dummy: random numbers of the right shape that lie in memory; it shows what the model alone can do",
    "samples": "samples: those that answers are verified on, ready in memory; it shows what the model alone can do",
    "real": "real: images are read from files, decoded, resized and normalized by the loader for every batch",
}


def study_conditions(study: Study) -> tuple[Group, ...]:
    """Models, data, settings, machines and versions; a fact that was not recorded is left out."""
    run = study.run
    groups = [*(_model(study, model) for model in run.models), Group("Data", _data(run.data))]
    groups.append(Group("Settings", _settings(run.settings)))
    groups += [*_machines(study), Group("Clock", _clock(run.clock))]
    groups += [Group("Its own limits", _limits(study)), Group("Versions", _versions(study))]
    return tuple(group for group in groups if group.facts)


def methods(study: Study) -> tuple[tuple[str, str], ...]:
    """How every figure was taken, as pairs of a heading and a paragraph."""
    return (
        ("Time", _about_time(study)),
        ("Speed-up", _about_speedups(study)),
        ("Memory", _about_memory(study)),
        ("Loaders", _about_loaders(study)),
        ("Limit", _about_limits()),
    )


def skipped_files(study: Study) -> tuple[tuple[str, str], ...]:
    """Files of the data that were not used, each with the reason."""
    return tuple((item.name, item.reason) for item in study.run.data.skipped)


def device_name(study: Study, row: Row) -> str | None:
    """What the cell ran on: the GPU's name, or the processor's."""
    machine = study.machine_of(row)
    if row.device == "cpu":
        return machine.environment.cpu
    return machine.gpus[0].name if machine.gpus else None


def device_names(study: Study) -> dict[str, str]:
    """The name of each device of the study, in words."""
    first = {device: study.at(device=device)[0] for device in study.devices}
    return {device: device_name(study, row) or device for device, row in first.items()}


def model_of(study: Study, name: str) -> Model | None:
    """What the run's first line says of a model."""
    return next((model for model in study.run.models if model.name == name), None)


def baseline_title(study: Study, device: str) -> str:
    """The title of the variant that a device's others are compared with."""
    name = study.run.baselines.get(device, "the baseline")
    return next((row.title for row in study.at(device=device, variant=name)), name)


def machine(environment: Environment) -> tuple[tuple[str, str], ...]:
    """The machine of a run, from its environment."""
    noise = environment.noise
    return known(
        ("processor", environment.cpu),
        ("instructions", " ".join(environment.flags)),
        ("cores", f"{environment.cores_available} of {environment.cores_logical} usable"),
        ("memory", gigabytes(environment.memory_bytes)),
        ("container's CPU limit", environment.container_cpu_limit),
        ("container's memory limit", gigabytes(environment.container_memory_bytes)),
        ("frequency governor", environment.governor),
        ("load at the start", " ".join(map(str, environment.load_average))),
        ("noise", formats.percent(noise.spread) if noise else None),
        ("steal", formats.percent(noise.steal) if noise and noise.steal is not None else None),
        ("system", environment.os),
        ("variables", ", ".join(f"{name}={value}" for name, value in environment.variables.items())),
    )


def tensor_text(spec: TensorSpec) -> str:
    """A tensor in words.

    >>> tensor_text(TensorSpec("image", ("batch", 3, 224, 224), "float32"))
    'image: float32 (batch, 3, 224, 224)'
    """
    return f"{spec.name}: {spec.dtype} ({', '.join(str(size) for size in spec.shape)})"


def _model(study: Study, model: Model) -> Group:
    preprocess = model.preprocess
    macs = {size: count for (owner, size), count in study.macs.items() if owner == model.name}
    words = {
        f"multiply-adds at {height}×{width}": f"{formats.digits(count / 1e9)} billion"
        for (height, width), count in macs.items()
    }
    facts = known(
        ("name", model.name),
        ("parameters", formats.count(model.parameters)),
        ("inputs", "; ".join(map(tensor_text, model.signature.inputs))),
        ("outputs", "; ".join(map(tensor_text, model.signature.outputs))),
        *words.items(),
        ("channel order", preprocess.color if preprocess else None),
        ("resize", preprocess.resize if preprocess else None),
        ("mean", in_words(preprocess.mean) if preprocess else None),
        ("standard deviation", in_words(preprocess.std) if preprocess else None),
        ("notes", "; ".join(model.notes)),
        ("sha256", model.sha256),
    )
    return Group("Model" if len(study.run.models) == 1 else f"Model {model.name}", facts)


def _data(data: Data) -> tuple[tuple[str, str], ...]:
    verified = data.verification > 0
    return known(
        ("source", data.source),
        ("images", data.images or None),
        ("samples for calibration", data.calibration or None),
        ("samples for verification", data.verification or None),
        ("labels", in_words(data.labelled) if verified else None),
        ("files skipped", len(data.skipped) if verified else None),
    )


def _settings(settings: StudyConfig) -> tuple[tuple[str, str], ...]:
    names = [name for name in StudyConfig.__dataclass_fields__ if getattr(settings, name) not in ((), "", None)]
    return known(*((_setting(name), _setting_value(name, getattr(settings, name))) for name in names))


def _setting(key: str) -> str:
    """The name of a setting, its unit in words."""
    return f"{label_of(key.removesuffix('_s'))}, seconds" if key.endswith("_s") else label_of(key)


def _setting_value(key: str, value: object) -> str:
    if key == "sizes" and isinstance(value, tuple):
        return ", ".join("×".join(str(side) for side in size) for size in value)
    return in_words(value)


def _machines(study: Study) -> list[Group]:
    """Each machine that cells ran on once; the run's own where no machine is named."""
    machines = {name: node.machine for name, node in study.nodes.items()} or {"": study.run.machine}
    idle = study.run.idle_cores
    asleep = known(("others' work before", f"{idle:.1f} cores" if idle is not None else None))
    return [
        Group(
            "Machine" if len(machines) == 1 else f"Machine {name}",
            (*machine(one.environment), *(asleep if len(machines) == 1 else ()), *map(_gpu, one.gpus)),
        )
        for name, one in machines.items()
    ]


def _gpu(gpu: Gpu) -> tuple[str, str]:
    told = (gpu.name, f"driver {gpu.driver}", f"CUDA {gpu.cuda}", f"compute capability {gpu.compute_capability}")
    return "GPU", ", ".join((*told, gigabytes(gpu.memory_bytes) or ""))


def _clock(clock: ClockFacts) -> tuple[tuple[str, str], ...]:
    facts = (("resolution", clock.resolution_s), ("what timing adds to a call", clock.overhead_s))
    return tuple((label, f"{formats.digits(1e6 * seconds)} µs") for label, seconds in facts)


def _limits(study: Study) -> tuple[tuple[str, str], ...]:
    rates = tuple(
        (f"peak {precision} on {device}", f"{formats.digits(rate)} GFLOP/s")
        for (device, precision), rate in study.ceilings.items()
    )
    widths = tuple((f"memory of {device}", f"{formats.digits(rate)} GB/s") for device, rate in study.bandwidth.items())
    return rates + widths


def _versions(study: Study) -> tuple[tuple[str, str], ...]:
    environment = study.run.machine.environment
    found = {"Python": environment.python, **environment.versions}
    for row in study.rows:  # those of runtimes that live in a Python of their own
        found |= {name: version for name, version in row.versions.items() if name not in found}
    return (*known(("redline", study.run.redline), ("commit", study.run.commit)), *found.items())


def _about_time(study: Study) -> str:
    settings = study.run.settings
    told = []
    if "cpu" in study.devices:
        told.append("On cpu, time is that of a session's call, host arrays in to host arrays out.")
    if "cuda" in study.devices:
        told.append(
            "On cuda, time is the device's own by CUDA events, without the copies; the time from host arrays to host "
            "arrays stands below it."
        )
    told.append(
        f"Each cell was measured in {settings.repeats} generations of fresh processes, in each of them in "
        f"{settings.rounds} windows of equal length, {formats.digits(settings.window_s)} s at least, in turns with all "
        "other variants of the same batch and image size, so that a drift of the machine hits all alike."
    )
    if settings.confirm:
        told.append(
            f"The finalists, the baseline and its control were measured again in {settings.confirm} fresh processes "
            f"with {confirm_rounds(settings)} windows each; what is said of their speed rests on those alone."
        )
    told.append(
        "Rounds in which other work took a core are left out for all. Median and p90 are over all calls that are kept; "
        f"a p99 needs {formats.P99_SAMPLES} of them. Images a second are the batch over the mean time."
    )
    return " ".join(told)


def _about_speedups(study: Study) -> str:
    names = "; ".join(f"{baseline_title(study, device)} on {device}" for device in study.devices)
    return (
        f"Against {names}, at the same batch, image size and loader: the ratio of mean times, a number a process, with "
        f"Student's {100 * CONFIDENCE:.0f} % interval over processes. “The same” means that the interval lies within "
        f"{100 * SAME_BAND:.0f} % of 1. Nothing is said where the control (the baseline entered a second time) is not "
        f"sound, other work took more than 5 % of the time, or the interval is wider than ±{100 * WIDEST:.0f} %."
    )


def _about_memory(study: Study) -> str:
    host = "the peak of what the worker process wrote for itself and of its model's own files"
    told = [f"Host memory is {host}, the largest over its generations; libraries are not in it."]
    if "cuda" in study.devices:
        told.append(
            "Device memory is what NVIDIA's driver counts for the process at its peak: weights, activations, workspace "
            "and the runtime's own context. What the framework's allocator had handed out is named apart where known."
        )
    told.append("The weights are those in the variant's own file; they are a part of the peak.")
    return " ".join(told)


def _about_loaders(study: Study) -> str:
    words = "; ".join(_LOADERS.get(name, name) for name in study.loaders)
    if "real" not in study.loaders:
        return f"{words[:1].upper()}{words[1:]}."
    return (
        f"{words[:1].upper()}{words[1:]}. “With loader” is the time of a batch of loader and model together while the "
        "loader works ahead; “in line” is the same with the loader's work between two calls."
    )


def _about_limits() -> str:
    return (
        "The share of the limit is the least time that this machine's measured peak arithmetic and memory rates allow, "
        "over the time taken. More than 100 % is possible: a convolution can need fewer multiplications than are "
        "counted (Winograd), or reach a rate that the matrix product measured for the limit did not."
    )
