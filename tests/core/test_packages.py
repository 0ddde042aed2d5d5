"""The table of packages beside pyproject.toml, and beside what src imports."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from redline.backends import BACKENDS
from redline.core.packages import PACKAGES, Package, extras_by_module, missing

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
#: Brought by a package of the table, or by the machine that runs it, and imported only beside that.
BESIDE = {
    *("_typeshed", "cucim", "google", "markupsafe", "scipy", "starlette", "triton", "triton_python_backend_utils"),
    *("tensorrt_bindings", "tensorrt_rtx_bindings"),
}


def names(requirements: list[str]) -> set[str]:
    """Distributions, those of the extras that are named too."""
    found = set()
    for line in requirements:
        name, more = re.match(r"([A-Za-z0-9._-]+)(?:\[([^\]]*)\])?", line).groups()
        if name == "redline":
            for extra in more.split(","):
                found |= names(PROJECT["optional-dependencies"][extra])
        found.add(name.lower())
    return found


def imports() -> set[str]:
    found = set()
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module.split(".")[0])
            elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "find_spec")):
                found |= {str(one.value).split(".")[0] for one in node.args if isinstance(one, ast.Constant)}
    return found - sys.stdlib_module_names - {"redline", "scale"}


@pytest.mark.parametrize("package", [one for one in PACKAGES if one.extras], ids=lambda one: one.distribution)
def test_each_extra_brings_its_package(package: Package):
    always = names(PROJECT["dependencies"])
    for extra in package.extras:
        assert package.distribution in names(PROJECT["optional-dependencies"][extra]) | always


def test_each_optional_import_is_in_the_table():
    always = names(PROJECT["dependencies"])
    brought = packages_distributions()
    own = {module for module, found in brought.items() if {one.lower() for one in found} & always}
    known = {package.module for package in PACKAGES}
    beside = BESIDE | {
        "starlette",
        "triton",
        "triton_python_backend_utils",
        "tensorrt_bindings",
        "tensorrt_rtx_bindings",
    }
    assert imports() - own - known - beside == set()


def test_each_backend_names_an_extra_that_brings_its_package():
    for entry in BACKENDS.values():
        assert any(entry.package == one.module and entry.extra in one.extras for one in PACKAGES), entry


def test_scale_names_its_own_extra_first():
    assert (extras_by_module()["flask"], extras_by_module("scale")["flask"]) == ("serve", "scale")
    assert extras_by_module("scale")["torch"] == "torch"


def test_a_package_outside_of_the_table_is_refused():
    with pytest.raises(KeyError, match="nothing"):
        missing("nothing")
