"""What the exporters' pages of error text mean, in a line: the operator or the user's line, and what to try."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from redline.core.errors import ExportError, RedlineError
from redline.core.packages import missing

_REWRITE = "rewrite that part of the model with other operators"
_OPERATORS = (
    re.compile(r"No ONNX function found for <OpOverload\(op='([^']+)'"),
    re.compile(r"Exporting the operator '([^']+)' to ONNX opset version \d+ is not supported"),
    re.compile(r"unrecognized namespace ([\w:]+)"),
    re.compile(r"no fake impl registered for <CustomOpDef\(([^)]+)\)>"),
    re.compile(r"[Uu]nsupported: (?:ONNX export of operator|onnx export of) ([\w:]+)"),
    re.compile(r"ONNX export of operator ([\w:]+)"),
)
_SPECIALIZED = re.compile(
    r"specialized it to be a constant \((\d+)\)|specialized .*?to (?:be )?(?:a )?constant \(?(\d+)"
)
_USER_LINE = re.compile(r'File "([^"]+)", line (\d+), in .+\n\s+(.+)')


def explain(error: BaseException, exporter: str) -> RedlineError:
    """An :class:`ExportError` for what either exporter raised, or that a package of PyTorch's exporter is missing."""
    if any(isinstance(cause, ModuleNotFoundError) and cause.name == "onnxscript" for cause in _causes(error)):
        return missing("onnxscript")
    text = "\n".join(str(cause) for cause in _causes(error))
    other = "torchscript" if exporter == "dynamo" else "dynamo"
    for pattern in _OPERATORS:
        if found := pattern.search(text):
            return ExportError(
                f"operator {found[1].replace('::', '.')} has no ONNX form in the {exporter} exporter; "
                f"{_REWRITE}, or try --exporter {other} or another --opset"
            )
    if "data-dependent" in text:
        return ExportError(
            f"the model decides by the values of a tensor{_where(text)}, which a graph cannot; "
            "use torch.where or torch.cond there, or move it out of forward"
        )
    if found := _SPECIALIZED.search(text):
        size = found[1] or found[2]
        return ExportError(
            f"the model's code works at one size only ({size}) where the export was to leave it dynamic; "
            f"make the code follow x.shape, or fix the size: --batch {size}"
        )
    innermost = list(_causes(error))[-1]
    return ExportError(
        f"the {exporter} exporter failed: {type(innermost).__name__}: {first_line(innermost)}{_where(text)}; "
        f"try --exporter {other} or another --opset"
    )


def first_line(error: object) -> str:
    """The first line of a text that says something, or its type."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__


def _where(text: str) -> str:
    lines = [found for found in _USER_LINE.findall(text) if "/torch/" not in found[0]]
    if not lines:
        return ""
    file, number, code = lines[-1]
    return f" ({Path(file).name}, line {number}: {code.strip()})"
