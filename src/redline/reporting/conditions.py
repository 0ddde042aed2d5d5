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
        Group("Settings", tuple((_words(key), _value(value)) for key, value in run.get("settings", {}).items())),
        Group("Machine", _machine(run.get("environment", {}))),
        Group("Its own limits", _limits(study)),
        Group("Versions", _versions(run)),
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
    return _known(
        ("name", model.get("name")),
        ("parameters", formats.count(model["parameters"]) if model.get("parameters") else None),
        ("multiply-adds per sample", f"{formats.digits(macs / 1e9)} billion" if macs else None),
        ("inputs", "; ".join(tensor_text(spec) for spec in model.get("inputs", ()))),
        ("outputs", "; ".join(tensor_text(spec) for spec in model.get("outputs", ()))),
        ("sha256", model.get("sha256")),
    )


def _data(data: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    skipped = data.get("skipped")
    return _known(
        ("source", data.get("source")),
        ("samples for calibration", data.get("calibration")),
        ("samples for verification", data.get("verification")),
        ("labels", _value(data.get("labelled"))),
        ("files skipped", len(skipped) if skipped is not None else None),
        ("answers depend on the input", _value(data.get("depends_on_input"))),
    )


def _machine(environment: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    noise = environment.get("noise") or {}
    return _known(
        ("processor", environment.get("cpu")),
        ("instructions", " ".join(environment.get("flags") or ())),
        ("cores", _cores(environment)),
        ("memory", _gigabytes(environment.get("memory_bytes"))),
        ("container's CPU limit", environment.get("container_cpu_limit")),
        ("container's memory limit", _gigabytes(environment.get("container_memory_bytes"))),
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


def _versions(run: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    environment = run.get("environment", {})
    own = _known(("redline", run.get("redline")), ("Python", environment.get("python")))
    return own + tuple((str(name), str(version)) for name, version in (environment.get("versions") or {}).items())


def _cores(environment: Mapping[str, Any]) -> str | None:
    available, logical = environment.get("cores_available"), environment.get("cores_logical")
    return None if available is None else f"{available} of {logical} usable"


def _gigabytes(size_bytes: float | None) -> str | None:
    return None if size_bytes is None else f"{formats.digits(size_bytes / 1e9)} GB"


def _known(*facts: tuple[str, Any]) -> tuple[tuple[str, str], ...]:
    return tuple((label, str(value)) for label, value in facts if value not in (None, "", formats.DASH))


def _words(key: str) -> str:
    return key.replace("_", " ")


def _value(value: Any) -> str:
    match value:
        case None:
            return formats.DASH
        case bool():
            return "yes" if value else "no"
        case list() | tuple():
            return ", ".join(_value(item) for item in value)
        case _:
            return str(value)
