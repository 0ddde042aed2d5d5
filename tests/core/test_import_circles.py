"""The modules of src, as a graph of what each imports."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

SRC = Path(__file__).parents[2] / "src"


def modules(root: Path) -> dict[str, ast.Module]:
    found = {}
    for path in root.rglob("*.py"):
        parts = path.relative_to(root).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


def only_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


def statements(tree: ast.AST) -> list[ast.Import | ast.ImportFrom]:
    """Every import that may ever run, those inside functions too."""
    found: list[ast.Import | ast.ImportFrom] = []
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            found.append(node)
        elif not only_for_types(node):
            found.extend(statements(node))
    return found


def imported(tree: ast.AST, names: set[str]) -> set[str]:
    found = set()
    for node in statements(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        else:
            within = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= within & names or {node.module or ""}
    return found & names


def graph(root: Path) -> dict[str, set[str]]:
    trees = modules(root)
    # A package's own file gives version and lazy names: everything below may ask it.
    return {name: imported(tree, set(trees)) - {name, "redline", "scale"} for name, tree in trees.items()}


def test_no_module_imports_itself_by_a_detour():
    try:
        TopologicalSorter(graph(SRC)).prepare()
    except CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))


def test_a_late_import_closes_a_circle(tmp_path):
    (tmp_path / "a.py").write_text("import b\n")
    (tmp_path / "b.py").write_text("def f():\n    from a import x\n")
    with pytest.raises(CycleError):
        TopologicalSorter(graph(tmp_path)).prepare()


def test_an_import_for_types_closes_none(tmp_path):
    (tmp_path / "a.py").write_text("import b\n")
    (tmp_path / "b.py").write_text("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import a\n")
    TopologicalSorter(graph(tmp_path)).prepare()
