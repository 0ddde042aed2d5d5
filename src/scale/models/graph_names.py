"""Names that a graph does not have yet, for what a rewrite adds to it."""

from __future__ import annotations

import onnx

from redline.formats.onnx_file import all_nodes


class FreeNames:
    """Gives names that are free in a graph and those within it, each once."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        """Takes the names that are there."""
        self._taken = {value for node in all_nodes(graph.node) for value in (*node.input, *node.output)}
        for values in (graph.initializer, graph.input, graph.output, graph.value_info):
            self._taken |= {value.name for value in values}

    def __call__(self, wanted: str) -> str:
        """That name, or the next one like it."""
        while wanted in self._taken:
            wanted += "_"
        self._taken.add(wanted)
        return wanted
