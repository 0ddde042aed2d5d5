"""Gives optimum-benchmark 0.6.0 the one name that Optimum 2 took away, so that its ONNX Runtime backend imports.

On the path only of the run that says so. ``ORT_SUPPORTED_TASKS`` was a table in ``optimum.pipelines``; the backend
reads the class of a task from it.
"""

from __future__ import annotations

import sys
from typing import Any


class _Finder:
    def find_spec(self, name: str, _path: Any = None, _target: Any = None) -> None:
        """Act when the backend is about to be imported, and never again; find nothing."""
        if name == "optimum_benchmark.backends.onnxruntime.utils":
            sys.meta_path.remove(self)  # type: ignore[arg-type]
            import optimum.pipelines
            from optimum.onnxruntime import ORTModelForImageClassification

            tasks = {"image-classification": {"class": (ORTModelForImageClassification,)}}
            optimum.pipelines.ORT_SUPPORTED_TASKS = tasks


sys.meta_path.insert(0, _Finder())  # type: ignore[arg-type]
