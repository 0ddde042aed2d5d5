"""What a study asks for, from a file or from flags; unknown keys and wrong types are refused by name."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

from redline.core.errors import InputError
from redline.variants import DEVICES, VARIANTS, Device, choose_variants

LOADERS = ("dummy", "samples", "real")
METHODS = ("minmax", "entropy", "percentile")
Objective = Literal["latency", "throughput", "memory", "size"]
OBJECTIVES: tuple[Objective, ...] = get_args(Objective)
_LEAST = {
    "rounds": 3,
    "repeats": 1,
    "confirm": 0,
    "seed": 0,
    "threads": 0,
    "samples": 1,
    "verification_samples": 1,
}
_LONGEST_WINDOW_S = 60.0
_FEW = 4  # choices, all of which are shown to whoever took none of them


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyConfig:
    """A study: every model in every variant, at every batch and image size, with every loader.

    Attributes:
        models: As on the command line.
        name: Title of the report; empty for the models' names.
        backends: What runs the model: torch, torch-compile, torchscript, onnxruntime, openvino, tensorrt …
        precisions: fp32, tf32, fp16, bf16, int8 …; ``default`` where a runtime chooses itself.
        variants: Names of variants, in the place of backends and precisions; empty takes those.
        devices: cpu, cuda.
        loaders: ``dummy`` (samples that lie in memory) and ``real`` (decoded images).
        batches: Batch sizes; the first is the one that a tune recommends for.
        sizes: Image sizes, (height, width); empty takes each model's own.
        baseline: The backend-precision pair, such as ``torch-fp32``, that the others are compared with on their device.
        data: A folder of images, or arrays in a ``.npz``; None takes what ships with the model or with Redline.
        labels: A CSV file with the columns file and label.
        weights: A checkpoint for the model.
        objective: What a tune's recommendation should be best at.
        max_accuracy_drop: The gate: accuracy against labels may fall by this much, 0 to 1.
        min_agreement: The gate: the share of top-1 answers that must be the same, 0 to 1.
        repeats: How many generations of worker processes measure every cell.
        rounds: How often each cell has its turn in one generation.
        confirm: How many fresh generations measure the finalists of each group again; 0 for none.
        window_s: How long a turn is, at least: of all cells of a group, four of its slowest calls.
        warmup_s: The longest warm-up.
        cell_timeout_s: The most that one cell may take in one generation, all its steps together.
        threads: Of every runtime and of the loaders; 0 takes the cores that nothing else uses.
        samples: The most samples that INT8 is calibrated on.
        verification_samples: The most samples that answers are compared on.
        method: How static INT8 finds ranges: minmax, entropy or percentile.
        seed: Of the order, the random inputs and the shuffling of images.
        interpreters: Pairs of a backend and the Python that runs it, for runtimes that cannot live in one environment
            with the rest; each must find ``redline``.
    """

    models: tuple[str, ...]
    name: str = ""
    backends: tuple[str, ...] = ("torch", "onnxruntime", "openvino")
    precisions: tuple[str, ...] = ("fp32",)
    variants: tuple[str, ...] = ()
    devices: tuple[Device, ...] = ("cpu",)
    loaders: tuple[str, ...] = ("dummy",)
    batches: tuple[int, ...] = (1,)
    sizes: tuple[tuple[int, int], ...] = ()
    baseline: str = "torch-fp32"
    data: str | None = None
    labels: str | None = None
    weights: str | None = None
    objective: Objective = "latency"
    max_accuracy_drop: float = 0.01
    min_agreement: float = 0.99
    repeats: int = 3
    rounds: int = 6
    confirm: int = 0
    window_s: float = 0.05
    warmup_s: float = 3.0
    cell_timeout_s: float = 180.0
    threads: int = 0
    samples: int = 64
    verification_samples: int = 128
    method: str = "minmax"
    seed: int = 0
    interpreters: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        for key in ("models", "backends", "precisions", "devices", "loaders", "batches"):
            _check_names(key, getattr(self, key))
        _check_sizes(self.batches, self.sizes)
        self._check_numbers()
        for backend, _ in self.interpreters:
            _one_of(backend, BACKEND_NAMES, "interpreters")
        _one_of(self.objective, OBJECTIVES, "objective")
        _one_of(self.method, METHODS, "method")
        for device in self.devices:
            choose_variants(self.variants, device)
        _one_of(self.baseline, tuple(sorted({f"{v.backend}-{v.precision_word}" for v in VARIANTS})), "baseline")

    def _check_numbers(self) -> None:
        for key, least in _LEAST.items():
            if getattr(self, key) < least:
                raise InputError(f"{key} is {getattr(self, key)}, expected at least {least}")
        if not 0 < self.window_s <= _LONGEST_WINDOW_S:
            raise InputError(f"window_s is {self.window_s}, expected more than 0 and at most {_LONGEST_WINDOW_S}")
        for key in ("warmup_s", "cell_timeout_s"):
            if getattr(self, key) <= 0:
                raise InputError(f"{key} is {getattr(self, key)}, expected more than 0")
        for key in ("max_accuracy_drop", "min_agreement"):
            if not 0 <= getattr(self, key) <= 1:
                raise InputError(f"{key} is {getattr(self, key)}, expected 0 to 1")


#: What can be asked for.
BACKEND_NAMES: tuple[str, ...] = tuple(dict.fromkeys(variant.backend for variant in VARIANTS))
PRECISION_WORDS: tuple[str, ...] = tuple(dict.fromkeys(variant.precision_word for variant in VARIANTS))

_KNOWN: dict[str, tuple[str, ...]] = {
    "backends": BACKEND_NAMES,
    "precisions": PRECISION_WORDS,
    "devices": DEVICES,
    "loaders": LOADERS,
}
_TABLES = {
    "": ("name", "models"),
    "grid": ("backends", "precisions", "variants", "devices", "loaders", "batches", "sizes", "baseline"),
    "measure": ("repeats", "rounds", "confirm", "window_s", "warmup_s", "cell_timeout_s", "threads", "seed"),
    "gate": ("objective", "max_accuracy_drop", "min_agreement"),
    "data": ("images", "labels", "weights", "samples", "verification_samples", "method"),
    "interpreters": BACKEND_NAMES,
}
_NUMBERS = frozenset(("window_s", "warmup_s", "cell_timeout_s", "max_accuracy_drop", "min_agreement"))
_WHOLE = frozenset(("rounds", "repeats", "confirm", "threads", "seed", "samples", "verification_samples"))
_WORDS = frozenset(("name", "baseline", "images", "labels", "weights", "objective", "method"))


def read_config(path: Path) -> dict[str, object]:
    """The fields of :class:`StudyConfig` that a study's file sets; flags may replace them.

    Raises:
        InputError: the file is missing, is no TOML, or has a key or a value that does not belong there; names it.
    """
    tables = _tables(path)
    found: dict[str, object] = {}
    for table, keys in _TABLES.items():
        values = tables if not table else tables.get(table, {})
        if not isinstance(values, dict):
            raise InputError(f"{path}: {table} is {values!r}, expected a table [{table}]")
        if table == "interpreters":
            found |= _interpreters(values, path)
            continue
        for key, value in values.items():
            if not table and key in _TABLES:
                continue
            where = f"{path}: {key}" if not table else f"{path}: {table}.{key}"
            _one_of(key, (*keys, *(_TABLES if not table else ())), f"{path}: key in [{table or 'top level'}]")
            found[key] = _typed(key, value, where)
    if "images" in found:
        found["data"] = found.pop("images")
    for key in ("data", "labels", "weights"):
        if key in found:
            found[key] = str(path.parent / cast("str", found[key]))
    return found


def _tables(path: Path) -> dict[str, object]:
    try:
        return tomllib.loads(path.read_text())
    except FileNotFoundError as error:
        raise InputError(f"{path} is not a file; expected a study such as studies/resnet18.toml") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not TOML: {error}") from error


def _interpreters(values: Mapping[str, object], path: Path) -> dict[str, object]:
    for key in values:
        _one_of(key, BACKEND_NAMES, f"{path}: key in [interpreters]")
    pairs = [
        (key, str(_expect(value, str, f"{path}: interpreters.{key}", "the path of a Python")))
        for key, value in values.items()
    ]
    return {"interpreters": tuple(pairs)} if pairs else {}


def parse_image_size(value: object) -> tuple[int, int]:
    """Height and width from ``224`` or ``"224x320"``.

    >>> parse_image_size(224), parse_image_size("480x640")
    ((224, 224), (480, 640))
    """
    parts = str(value).lower().split("x")
    if isinstance(value, bool) or not 1 <= len(parts) <= 2 or not all(part.isdigit() for part in parts):
        raise InputError(f"got size {value!r}, expected 224 or '224x320' (height x width)")
    return int(parts[0]), int(parts[-1])


def _check_names(key: str, values: tuple[Any, ...]) -> None:
    if not values:
        raise InputError(f"{key} is empty, expected at least one")
    if len(set(values)) < len(values):
        raise InputError(f"{key} names something twice: {', '.join(map(str, values))}")
    for value in values if key in _KNOWN else ():
        _one_of(value, _KNOWN[key], key)


def _check_sizes(batches: tuple[int, ...], sizes: tuple[tuple[int, int], ...]) -> None:
    if min(batches) < 1:
        raise InputError(f"batches are {batches}, expected sizes of at least 1")
    if any(min(size) < 1 for size in sizes):
        raise InputError(f"sizes are {sizes}, expected at least 1x1")


def _typed(key: str, value: object, where: str) -> object:
    if key in _WORDS:
        return _expect(value, str, where, "text")
    if key in _WHOLE:
        return _expect(value, int, where, "a whole number")
    if key in _NUMBERS:
        return float(cast("float", _expect(value, (int, float), where, "a number")))
    items = cast("list[object]", _expect(value, list, where, "a list"))
    if key == "sizes":
        return tuple(parse_image_size(item) for item in items)
    if key == "batches":
        return tuple(_expect(item, int, where, "whole numbers") for item in items)
    return tuple(_expect(item, str, where, "texts") for item in items)


def _expect(value: object, kind: type | tuple[type, ...], where: str, words: str) -> Any:
    if not isinstance(value, kind) or isinstance(value, bool):
        raise InputError(f"{where} is {value!r}, expected {words}")
    return value


def _one_of(value: str, names: tuple[str, ...], what: str) -> None:
    if value not in names:
        close = difflib.get_close_matches(str(value), names, n=1) if len(names) > _FEW else []
        hint = f"did you mean {close[0]}?" if close else f"expected one of {', '.join(names)}"
        raise InputError(f"got {value!r} as {what}; {hint}")
