"""Under which conditions a grid was measured, and how each figure of it was taken."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from redline.grid.rows import GridRow, GridStudy
from redline.measurement.stats import CONFIDENCE
from redline.reporting import formats
from redline.reporting.conditions import Group, gigabytes, in_words, known, label_of, machine, tensor_text, versions

_LOADERS = {
    "dummy": "dummy: random numbers of the right shape that lie in memory; it shows what the model alone can do",
    "real": "real: images are read from files, decoded, resized and normalized by the loader for every batch",
}


def grid_conditions(study: GridStudy) -> tuple[Group, ...]:
    """Models, data, settings, machines and versions; a fact that was not recorded is left out."""
    run = study.run
    groups = [*(_model(study, model) for model in run.get("models", ())), Group("Data", _data(run.get("data") or {}))]
    groups.append(Group("Settings", _settings(run.get("settings") or {})))
    groups += [*_machines(study), Group("Clock", _clock(run.get("clock") or {}))]
    groups += [Group("Its own limits", _limits(study)), Group("Versions", versions(run))]
    return tuple(group for group in groups if group.facts)


def methods(study: GridStudy) -> tuple[tuple[str, str], ...]:
    """How every figure was taken, as pairs of a heading and a paragraph."""
    return (
        ("Time", _about_time(study)),
        ("Speed-up", _about_speedups(study)),
        ("Memory", _about_memory(study)),
        ("Loaders", _about_loaders(study)),
        ("Limit", _about_limits()),
    )


def device_name(study: GridStudy, row: GridRow) -> str | None:
    """What the cell ran on: the GPU's name, or the processor's."""
    environment = environment_of(study, row)
    if row.device == "cpu":
        return environment.get("cpu")
    gpus = environment.get("gpus") or ()
    return str(gpus[0]["name"]) if gpus else None


def device_names(study: GridStudy) -> dict[str, str]:
    """The name of each device of the grid, in words."""
    first = {device: study.at(device=device)[0] for device in study.devices}
    return {device: device_name(study, row) or device for device, row in first.items()}


def environment_of(study: GridStudy, row: GridRow) -> Mapping[str, Any]:
    """The environment of the machine that the cell ran on; what that does not say, the run's does."""
    run = study.run.get("environment") or {}
    node = (study.nodes.get(row.node or "") or {}).get("environment") or {}
    return {**run, **{name: value for name, value in node.items() if value is not None}}


def model_of(study: GridStudy, name: str) -> Mapping[str, Any]:
    """What the run's first line says of a model."""
    return next((model for model in study.run.get("models", ()) if model.get("name") == name), {})


def baseline_title(study: GridStudy, device: str) -> str:
    """The title of the variant that a device's others are compared with."""
    name = str((study.run.get("settings", {}).get("baseline") or {}).get(device) or "the baseline")
    return next((row.title for row in study.at(device=device, variant=name)), name)


def _model(study: GridStudy, model: Mapping[str, Any]) -> Group:
    name = str(model.get("name"))
    preprocess = model.get("preprocess") or {}
    macs = {size: count for (owner, size), count in study.macs.items() if owner == name}
    words = {
        f"multiply-adds at {height}×{width}": f"{formats.digits(count / 1e9)} billion"
        for (height, width), count in macs.items()
    }
    facts = known(
        ("name", name),
        ("parameters", formats.count(model["parameters"]) if model.get("parameters") else None),
        ("inputs", "; ".join(tensor_text(spec) for spec in model.get("inputs") or ())),
        ("outputs", "; ".join(tensor_text(spec) for spec in model.get("outputs") or ())),
        *words.items(),
        ("channel order", preprocess.get("color")),
        ("resize", preprocess.get("resize")),
        ("mean", in_words(preprocess.get("mean"))),
        ("standard deviation", in_words(preprocess.get("std"))),
        ("notes", "; ".join(model.get("notes") or ())),
        ("sha256", model.get("sha256")),
    )
    return Group("Model" if len(study.run.get("models", ())) == 1 else f"Model {name}", facts)


def _data(data: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    named = ("source", "images", "warning")
    rest = tuple((label_of(key), in_words(value)) for key, value in data.items() if key not in named)
    return known(("source", data.get("source")), ("images", data.get("images")), *rest)


def _settings(settings: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    return known(*((_setting(key), _setting_value(key, value)) for key, value in settings.items()))


def _setting(key: str) -> str:
    """The name of a setting, its unit in words."""
    return f"{label_of(key.removesuffix('_s'))}, seconds" if key.endswith("_s") else label_of(key)


def _setting_value(key: str, value: Any) -> str:
    if key == "sizes":
        return ", ".join("×".join(str(side) for side in size) for size in value)
    if isinstance(value, Mapping):
        return ", ".join(f"{in_words(item)} on {name}" for name, item in value.items())
    return in_words(value)


def _machines(study: GridStudy) -> list[Group]:
    """Each machine that cells ran on once; the run's own where no machine is named."""
    run = study.run.get("environment") or {}
    nodes = {name: record.get("environment") or {} for name, record in study.nodes.items()} or {"": run}
    groups = []
    for name, environment in nodes.items():
        title = "Machine" if len(nodes) == 1 else f"Machine {name}"
        gpus = environment.get("gpus") or run.get("gpus") or ()
        groups.append(Group(title, (*machine({**run, **environment}), *(_gpu(gpu) for gpu in gpus))))
    return groups


def _gpu(gpu: Mapping[str, Any]) -> tuple[str, str]:
    facts = known(
        ("", gpu.get("name")),
        ("driver ", gpu.get("driver")),
        ("CUDA ", gpu.get("cuda")),
        ("compute capability ", gpu.get("compute_capability")),
        ("", gigabytes(gpu.get("memory_bytes"))),
    )
    return "GPU", ", ".join(f"{label}{value}" for label, value in facts)


def _clock(clock: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    words = {"resolution_s": "resolution", "overhead_s": "what timing adds to a call"}
    return known(
        *((text, f"{formats.digits(1e6 * clock[key])} µs") for key, text in words.items() if clock.get(key) is not None)
    )


def _limits(study: GridStudy) -> tuple[tuple[str, str], ...]:
    rates = tuple(
        (f"peak {precision} on {device}", f"{formats.digits(rate)} GFLOP/s")
        for (device, precision), rate in study.ceilings.items()
    )
    widths = tuple((f"memory of {device}", f"{formats.digits(rate)} GB/s") for device, rate in study.bandwidth.items())
    return rates + widths


def _about_time(study: GridStudy) -> str:
    settings = study.run.get("settings") or {}
    told = []
    if "cpu" in study.devices:
        told.append("On cpu, time is that of a session's call, host arrays in to host arrays out.")
    if "cuda" in study.devices:
        told.append(
            "On cuda, time is the device's own by CUDA events, without the copies; the time from host arrays to host "
            "arrays stands below it."
        )
    known_settings = {name: settings.get(name) for name in ("repeats", "rounds", "window_s")}
    if None not in known_settings.values():
        told.append(
            f"Each cell was measured in {settings['repeats']} generations of worker processes, in each of them in "
            f"{settings['rounds']} windows of at least {formats.digits(settings['window_s'])} s, taken in turns with "
            "all other variants of the same batch and image size, so that a drift of the machine hits all alike."
        )
    told.append(
        f"Median and p90 are over all calls; a p99 (CSV) needs {formats.P99_SAMPLES} of them. Images a second are the "
        "batch over the mean time."
    )
    return " ".join(told)


def _about_speedups(study: GridStudy) -> str:
    names = "; ".join(f"{baseline_title(study, device)} on {device}" for device in study.devices)
    return (
        f"Against {names}, at the same batch, image size and loader, paired round by round. The interval holds the "
        f"true ratio in {100 * CONFIDENCE:.0f} % of such runs; “no difference” means that it holds 1."
    )


def _about_memory(study: GridStudy) -> str:
    told = ["Host memory is the peak that is private to the worker process, the largest over its generations."]
    if "cuda" in study.devices:
        told.append(
            "Device memory is what NVIDIA's driver counts for the process at its peak: weights, activations, workspace "
            "and the runtime's own context. What the framework's allocator had handed out is named apart where known."
        )
    told.append("The weights are those in the variant's own file; they are a part of the peak.")
    return " ".join(told)


def _about_loaders(study: GridStudy) -> str:
    names = [_LOADERS.get(name, name) for name in study.loaders]
    words = "; ".join(names)
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
