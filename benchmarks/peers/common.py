"""What every peer's script shares: its arguments, its result file, and how a failure becomes a line in it."""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    import torch

Format = Literal["onnx", "openvino-ir", "torchscript", "torch-export", "aoti-package"]
Runtime = Literal["onnxruntime", "openvino", "torch"]


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a peer is given.

    `calibration` is float32 (samples, 3, height, width), preprocessed as the model expects.
    """

    model: Path
    torch: str | None
    calibration: np.ndarray
    out: Path
    limit_s: float


@dataclass(frozen=True, kw_only=True)
class Product:
    """One file that a peer made; `file` is relative to the peer's folder, `batch` is None for a dynamic batch."""

    name: str
    file: str
    format: Format
    how: str
    runtime: Runtime
    runtime_options: dict[str, Any] = field(default_factory=dict)
    batch: int | None = None


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One call that a peer documents; `failed` says why when it did not end well."""

    command: str
    seconds: float
    products: tuple[Product, ...] = ()
    failed: str | None = None


class UnfinishedError(RuntimeError):
    """A call that was ended, or that failed late, and whose files so far can be used all the same."""

    def __init__(self, message: str, products: tuple[Product, ...]) -> None:
        super().__init__(message)
        self.products = products


Step = Callable[[Job], tuple[Product, ...]]


def attempt(command: str, step: Step, job: Job) -> Attempt:
    """Run one documented call. Whatever it raises becomes `failed`, so that the peer's other calls still count."""
    started = time.perf_counter()
    try:
        products = step(job)
    except (Exception, SystemExit) as error:
        traceback.print_exc()
        made = error.products if isinstance(error, UnfinishedError) else ()
        return Attempt(command=command, seconds=time.perf_counter() - started, products=made, failed=reason(error))
    return Attempt(command=command, seconds=time.perf_counter() - started, products=products)


def reason(error: BaseException) -> str:
    """The error as one line, with its cause where there is one."""
    text = f"{type(error).__name__}: {error}".strip()
    cause = error.__cause__
    if cause is not None:
        text += f" (from {type(cause).__name__}: {cause})"
    return " ".join(text.split())[:400]


def versions(*packages: str) -> str:
    """`name version` of each installed package, joined by commas."""
    return ", ".join(f"{package} {metadata.version(package)}" for package in packages)


def main(peer: str, version: Callable[[], str], steps: Mapping[str, Step]) -> None:
    """Parse the arguments, try each documented call in turn, write `result.json`.

    Args:
        peer: the peer's name.
        version: gives its version; called late, so that a broken install is a result too.
        steps: the call as documented -> what runs it.
    """
    parser = argparse.ArgumentParser(description=f"What {peer} makes of a model on a CPU.")
    parser.add_argument("--model", type=Path, required=True, help="fp32 ONNX file, one input, dynamic batch")
    parser.add_argument("--torch", help="the same model for peers that start from PyTorch: FILE.py:FACTORY or FILE.pt2")
    parser.add_argument("--calibration", type=Path, required=True, help=".npz with x: float32 (samples, 3, H, W)")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--limit-s", type=float, default=360.0, help="time that a call in a process of its own may take"
    )
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with np.load(options.calibration) as arrays:
        calibration = np.ascontiguousarray(arrays["x"], dtype=np.float32)
    job = Job(
        model=options.model.resolve(),
        torch=options.torch,
        calibration=calibration,
        out=options.out.resolve(),
        limit_s=options.limit_s,
    )
    write_result(
        peer, _version_or_reason(version), tuple(attempt(name, step, job) for name, step in steps.items()), job
    )


def write_result(peer: str, version: str, attempts: tuple[Attempt, ...], job: Job) -> None:
    """Write `result.json`; its `failed` is set only when no call gave a product."""
    products = [asdict(product) for one in attempts for product in one.products]
    failures = [f"{one.command}: {one.failed}" for one in attempts if one.failed]
    document = {
        "peer": peer,
        "version": version,
        "command": " ; ".join(one.command for one in attempts if one.products) or attempts[0].command,
        "seconds": round(sum(one.seconds for one in attempts), 2),
        "products": products,
        "attempts": [{**asdict(one), "products": [product.name for product in one.products]} for one in attempts],
        "failed": None if products else " ; ".join(failures),
    }
    (job.out / "result.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(json.dumps({key: document[key] for key in ("peer", "version", "seconds", "failed")}) + "\n")


def input_name(model: Path) -> str:
    """The name of the model's only input."""
    import onnx

    graph = onnx.load(model, load_external_data=False).graph
    constants = {tensor.name for tensor in graph.initializer}
    names = [value.name for value in graph.input if value.name not in constants]
    if len(names) != 1:
        raise ValueError(f"{model.name} has the inputs {names}, expected one")
    return str(names[0])


class CalibrationReader:
    """ONNX Runtime's calibration protocol over an array, one image a call."""

    def __init__(self, images: np.ndarray, name: str) -> None:
        self._images = images
        self._name = name
        self._next = 0

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next image as a batch of one, or None at the end."""
        if self._next >= len(self._images):
            return None
        image = self._images[self._next : self._next + 1]
        self._next += 1
        return {self._name: image}

    def __len__(self) -> int:
        return len(self._images)

    def set_range(self, start_index: int, end_index: int) -> None:
        """Some quantizers read the data in slices, to bound their memory."""
        self._images = self._images[start_index:end_index]
        self._next = 0


def torch_module(source: str | None) -> torch.nn.Module:
    """The module behind `FILE.py:FACTORY` or `FILE.pt2`, ready for inference.

    Raises:
        ValueError: no PyTorch model was given.
    """
    import torch

    if source is None:
        raise ValueError("this peer starts from a PyTorch module: give --torch FILE.py:FACTORY or FILE.pt2")
    if source.endswith(".pt2"):
        return torch.export.load(source).module()
    path, _, factory = source.rpartition(":")
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"--torch is {source!r}, expected FILE.py:FACTORY or FILE.pt2")
    module = importlib.util.module_from_spec(spec)
    # Peers pickle or re-import the module's class, in other processes too.
    sys.path.insert(0, str(Path(path).resolve().parent))
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    made = getattr(module, factory)()
    if not isinstance(made, torch.nn.Module):
        raise TypeError(f"{source} gave {type(made).__name__}, expected a torch.nn.Module")
    return made.eval()


def _version_or_reason(version: Callable[[], str]) -> str:
    try:
        return version()
    except metadata.PackageNotFoundError as error:
        return f"not installed: {error}"
