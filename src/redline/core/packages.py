"""The one table of packages that a command may import: what brings each, and which versions a result has to name."""

from __future__ import annotations

from dataclasses import dataclass

from redline.core.errors import MissingDependencyError


@dataclass(frozen=True, slots=True)
class Package:
    """A package that is not always there, or whose version belongs into a result.

    Attributes:
        module: What is imported.
        distribution: What pip installs.
        extras: Redline's extras that bring it, the one to type first; none for what is always installed.
        purpose: What it is for.
        recorded: Whether a result names its version.
        decides: Whether another version measures something else, so that both do not belong into one table.
    """

    module: str
    distribution: str
    extras: tuple[str, ...]
    purpose: str
    recorded: bool = False
    decides: bool = False


PACKAGES: tuple[Package, ...] = (
    Package("redline", "redline", (), "this", recorded=True),
    Package("numpy", "numpy", (), "arrays", recorded=True, decides=True),
    Package("torch", "torch", ("torch",), "runs, exports and compiles PyTorch models", recorded=True, decides=True),
    Package("onnx", "onnx", ("cpu",), "reads and writes model files", recorded=True),
    Package("onnxruntime", "onnxruntime", ("cpu", "gpu"), "runs ONNX files", recorded=True, decides=True),
    Package("onnxruntime", "onnxruntime-gpu", ("gpu",), "runs ONNX files on a GPU", recorded=True, decides=True),
    Package("openvino", "openvino", ("openvino",), "runs ONNX files", recorded=True, decides=True),
    Package("nncf", "nncf", ("openvino",), "INT8 for OpenVINO", recorded=True, decides=True),
    Package("onnxoptimizer", "onnxoptimizer", ("optimize",), "passes over ONNX graphs", recorded=True),
    Package("onnxslim", "onnxslim", ("optimize",), "passes over ONNX graphs", recorded=True),
    Package("onnxscript", "onnxscript", ("torch",), "PyTorch's exporter", recorded=True),
    Package("tensorrt", "tensorrt", ("tensorrt",), "builds and runs engines", recorded=True, decides=True),
    Package(
        "tensorrt_rtx",
        "tensorrt-rtx-cu13-bindings",
        ("tensorrt-rtx",),
        "builds and runs engines",
        recorded=True,
        decides=True,
    ),
    Package(
        "torch_tensorrt", "torch-tensorrt", ("torch-tensorrt",), "compiles PyTorch models", recorded=True, decides=True
    ),
    Package("cuda", "cuda-bindings", ("tensorrt", "tensorrt-rtx"), "memory and streams of a GPU"),
    Package("cuda.core", "cuda-core", ("tensorrt", "tensorrt-rtx"), "tensors on a GPU"),
    Package("pynvml", "nvidia-ml-py", ("tensorrt", "tensorrt-rtx", "torch-tensorrt", "gpu"), "clocks of a GPU"),
    Package("torchvision", "torchvision", ("torchvision",), "models by name", recorded=True),
    Package("timm", "timm", ("timm",), "models by name", recorded=True),
    Package("ultralytics", "ultralytics", ("yolo",), "reads Ultralytics' own files"),
    Package("vl_convert", "vl-convert-python", ("report",), "draws plots"),
    Package("sklearn", "scikit-learn", ("train", "scale"), "data to train on; sections of a slide"),
    Package("skimage", "scikit-image", ("train",), "data to train on"),
    Package("ray", "ray", ("cluster",), "many machines"),
    Package("flask", "flask", ("serve", "scale"), "HTTP"),
    Package("werkzeug", "flask", ("serve", "scale"), "HTTP"),
    Package("waitress", "waitress", ("serve", "scale"), "HTTP server"),
    Package("granian", "granian", ("serve",), "HTTP server"),
    Package("orjson", "orjson", ("serve", "scale"), "JSON"),
    Package("simdjson", "pysimdjson", ("serve",), "JSON"),
    Package("prometheus_client", "prometheus-client", ("serve",), "metrics"),
    Package("locust", "locust", ("loadtest",), "load"),
    Package("gevent", "locust", ("loadtest",), "load"),
    Package("cv2", "opencv-python-headless", ("detect", "scale"), "resizes images; outlines of a slide's tissue"),
    Package("tifffile", "tifffile", ("scale",), "slides"),
    Package("imagecodecs", "imagecodecs", ("scale",), "tiles of slides"),
    Package("openslide", "openslide-python", ("scale",), "slides"),
    Package("shapely", "shapely", ("scale",), "outlines"),
    Package("numba", "numba", ("scale",), "suppression of boxes"),
    Package("pyarrow", "pyarrow", ("scale",), "Parquet"),
)
RECORDED: tuple[str, ...] = tuple(package.distribution for package in PACKAGES if package.recorded)
DECIDING: tuple[str, ...] = tuple(package.distribution for package in PACKAGES if package.decides)


def extras_by_module(program: str = "redline") -> dict[str, str]:
    """The extra that brings each optional module; for ``scale``, its own where that has it.

    >>> extras_by_module()["sklearn"], extras_by_module("scale")["sklearn"]
    ('train', 'scale')
    """
    found: dict[str, str] = {}
    for package in PACKAGES:
        if package.extras:
            found.setdefault(package.module, program if program in package.extras else package.extras[0])
    return found


def extra_of(name: str) -> str:
    """The extra that brings a package, by the name of its module or distribution.

    Raises:
        KeyError: the table has no such package.
    """
    for package in PACKAGES:
        if package.extras and name in (package.module, package.distribution):
            return package.extras[0]
    raise KeyError(name)


def install(name: str) -> str:
    """What to type where it is not there.

    >>> install("nncf")
    "pip install 'redline[openvino]'"
    """
    return f"pip install 'redline[{extra_of(name)}]'"


def missing(name: str, *, extra: str | None = None) -> MissingDependencyError:
    """The error that says so, by the name of a module or distribution; ``extra`` where another brings it here.

    >>> str(missing("torch"))
    "torch is not installed; type: pip install 'redline[torch]'"
    """
    return MissingDependencyError(name, extra=extra or extra_of(name))
