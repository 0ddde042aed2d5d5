"""The page on TensorRT says what the code and the written surfaces say."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from tests.backends.tensorrt_api.usage import HERE, Surface

PAGE = (Path(__file__).parents[2] / "docs/tensorrt.md").read_text()
SURFACES = {path.stem: Surface.read(path.stem) for path in HERE.glob("*.json")}
PYTHON = re.findall(r"^```python\n(.*?)^```$", PAGE, re.M | re.S)


def row(title: str) -> list[str]:
    line = next(line for line in PAGE.splitlines() if line.startswith(f"| {title}"))
    return [cell.strip() for cell in line.strip("|").split("|")[1:]]


@pytest.mark.parametrize("generation", SURFACES)
def test_every_version_that_was_checked_is_named(generation: str) -> None:
    assert SURFACES[generation].version in PAGE


@pytest.mark.parametrize(
    ("title", "owner", "name"),
    [
        ("weak typing", "BuilderFlag", "FP16"),
        ("flag for BF16", "BuilderFlag", "BF16"),
        ("calibrators", "module", "IInt8EntropyCalibrator2"),
        ("strong typing", "NetworkDefinitionCreationFlag", "STRONGLY_TYPED"),
        ("progress of a build", "module", "IProgressMonitor"),
    ],
)
def test_the_table_of_generations_agrees_with_the_surfaces(title: str, owner: str, name: str) -> None:
    for cell, prefix in zip(row(title), ("8.6", "10.", "11.", "rtx"), strict=True):
        for generation, surface in SURFACES.items():
            if generation.startswith(prefix):
                there = surface.form(owner, name) is not None
                assert there == cell.startswith(("yes", "always")), f"{title}, {generation}: {cell}"


def test_the_gpus_that_tensorrt_rtx_builds_for_are_named() -> None:
    known = SURFACES["rtx-1.7"].classes["ComputeCapability"]["enum"]
    named = re.findall(r"\d+\.\d", row("compute capability")[3])
    assert {f"SM{one.replace('.', '')}" for one in named} == {name for name in known if name.startswith("SM")}


def test_what_the_examples_call_exists() -> None:
    pytest.importorskip("cuda.bindings", reason="CUDA's bindings are installed on Linux on x86-64 alone")
    from redline.backends.tensorrt.backend import TensorRt
    from redline.backends.tensorrt.pool import SessionPool
    from redline.backends.tensorrt.session import EngineSession
    from redline.opening.fallback import Found

    kinds = {"session": EngineSession, "pool": SessionPool, "found": Found, "load_backend": TensorRt}
    taken = [
        (ast.unparse(node.value).partition("(")[0], node.attr)
        for code in PYTHON
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.Attribute)
    ]
    checked = [(kinds[owner], name) for owner, name in taken if owner in kinds]
    assert len(checked) > 8
    for kind, name in checked:
        assert hasattr(kind, name), f"{kind.__name__} has no {name}"


def test_what_the_examples_import_exists() -> None:
    for code in PYTHON:
        imports = [line for line in code.splitlines() if line.startswith("from ")]
        exec("\n".join(imports), {})
