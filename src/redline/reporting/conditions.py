"""Under which conditions a run was made: the facts without which its numbers mean nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from redline.measurement.summary import Study
from redline.reporting import formats


@dataclass(frozen=True, slots=True)
class Group:
    """Facts that belong together, as pairs of label and value."""

    title: str
    facts: tuple[tuple[str, str], ...]


def conditions(study: Study) -> tuple[Group, ...]:
    """Model, data, settings, machine and versions of a run; a fact that was not recorded is left out."""
    run = study.run
    groups = (
        Group("Model", _model(run.get("model", {}))),
        Group("Data", _data(run.get("data", {}))),
        Group("Settings", tuple((label_of(key), in_words(value)) for key, value in run.get("settings", {}).items())),
        Group("Machine", machine(run.get("environment", {}))),
        Group("Its own limits", _limits(study)),
        Group("Versions", versions(run)),
    )
    return tuple(group for group in groups if group.facts)


def skipped_files(study: Study) -> tuple[tuple[str, str], ...]:
    """Files of the data that were not used, each with the reason."""
    skipped = study.run.get("data", {}).get("skipped") or ()
    return tuple((str(item["name"]), str(item["reason"])) for item in skipped)


def tensor_text(spec: Mapping[str, Any]) -> str:
    """A tensor in words.

    >>> tensor_text({"name": "image", "shape": ["batch", 3, 224, 224], "dtype": "float32"})
    'image: float32 (batch, 3, 224, 224)'
    """
    return f"{spec['name']}: {spec['dtype']} ({', '.join(str(size) for size in spec['shape'])})"


def _model(model: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    macs = model.get("macs_per_sample")
    return known(
        ("name", model.get("name")),
        ("parameters", formats.count(model["parameters"]) if model.get("parameters") else None),
        ("multiply-adds per sample", f"{formats.digits(macs / 1e9)} billion" if macs else None),
        ("inputs", "; ".join(tensor_text(spec) for spec in model.get("inputs", ()))),
        ("outputs", "; ".join(tensor_text(spec) for spec in model.get("outputs", ()))),
        ("sha256", model.get("sha256")),
    )


def _data(data: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    skipped = data.get("skipped")
    return known(
        ("source", data.get("source")),
        ("samples for calibration", data.get("calibration")),
        ("samples for verification", data.get("verification")),
        ("labels", in_words(data.get("labelled"))),
        ("files skipped", len(skipped) if skipped is not None else None),
        ("answers depend on the input", in_words(data.get("depends_on_input"))),
    )


def machine(environment: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """The machine of a run, from its environment."""
    noise = environment.get("noise") or {}
    return known(
        ("processor", environment.get("cpu")),
        ("instructions", " ".join(environment.get("flags") or ())),
        ("cores", _cores(environment)),
        ("memory", gigabytes(environment.get("memory_bytes"))),
        ("container's CPU limit", environment.get("container_cpu_limit")),
        ("container's memory limit", gigabytes(environment.get("container_memory_bytes"))),
        ("frequency governor", environment.get("governor")),
        ("load at the start", " ".join(str(load) for load in environment.get("load_average") or ())),
        ("noise between rounds", formats.percent(noise.get("spread")) if noise.get("spread") is not None else None),
        ("system", environment.get("os")),
    )


def _limits(study: Study) -> tuple[tuple[str, str], ...]:
    rates = tuple((f"peak {name}", f"{formats.digits(rate)} GFLOP/s") for name, rate in study.ceilings.items())
    if study.bandwidth is None:
        return rates
    return (*rates, ("memory bandwidth", f"{formats.digits(study.bandwidth)} GB/s"))


def versions(run: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Redline, Python and the packages of a run."""
    environment = run.get("environment", {})
    own = known(("redline", run.get("redline")), ("Python", environment.get("python")))
    return own + tuple((str(name), str(version)) for name, version in (environment.get("versions") or {}).items())


def _cores(environment: Mapping[str, Any]) -> str | None:
    available, logical = environment.get("cores_available"), environment.get("cores_logical")
    return None if available is None else f"{available} of {logical} usable"


def gigabytes(size_bytes: float | None) -> str | None:
    """Bytes as gigabytes (10^9), with the unit."""
    return None if size_bytes is None else f"{formats.digits(size_bytes / 1e9)} GB"


def known(*facts: tuple[str, Any]) -> tuple[tuple[str, str], ...]:
    """The facts that were recorded."""
    return tuple((label, str(value)) for label, value in facts if value not in (None, "", formats.DASH))


def label_of(key: str) -> str:
    """The name of a setting in words."""
    return key.replace("_", " ")


def in_words(value: Any) -> str:
    """The value of a setting in words."""
    match value:
        case None:
            return formats.DASH
        case bool():
            return "yes" if value else "no"
        case list() | tuple():
            return ", ".join(in_words(item) for item in value)
        case _:
            return str(value)
