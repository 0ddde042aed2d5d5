"""What our code takes from a TensorRT module, found in its syntax tree, and what each generation's bindings have."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

MODULE = "module"
HERE = Path(__file__).parent
# What a name means where our code has no type for it, as it came from another function.
SEEDS = {
    "module": MODULE,
    "library.module": MODULE,
    "self.module": MODULE,
    "self.library.module": MODULE,
    "library.logger": "ILogger",
    "self.logger": "ILogger",
    "builder": "Builder",
    "network": "INetworkDefinition",
    "config": "IBuilderConfig",
    "context": "IExecutionContext",
    "plan.context": "IExecutionContext",
    "errors": "list[ParserError]",
    "severity": "ILogger.Severity",
}
# Of parameters only: a local variable of that name is one of our own engines.
PARAMETERS = {"engine": "ICudaEngine"}
# What a name that is not written out in a getattr can be.
COMPUTED = {
    "CLASSES[method]": ("IInt8EntropyCalibrator2", "IInt8MinMaxCalibrator"),
    "name": ("FP16", "BF16", "INT8", "FP8"),
    "target.upper()": (),
}
_ENUM_MEMBERS = {"name": "get str", "value": "get int"}


@dataclass(frozen=True)
class Surface:
    """One generation's bindings."""

    version: str
    classes: Mapping[str, Mapping[str, Mapping[str, str]]]
    functions: Mapping[str, str]

    @classmethod
    def read(cls, generation: str) -> Surface:
        value = json.loads((HERE / f"{generation}.json").read_text())
        return cls(value["version"], value["classes"], value["functions"])

    @classmethod
    def union(cls, surfaces: list[Surface]) -> Surface:
        """What any of them has; of what several have, the last one's form."""
        classes: dict[str, dict[str, dict[str, str]]] = {}
        for surface in surfaces:
            for name, found in surface.classes.items():
                known = classes.setdefault(name, {"enum": {}, "members": {}, "bases": {}})
                known["members"] = {**known["members"], **found.get("members", {})}
                known["enum"] = {**known["enum"], **found.get("enum", {})}
                known["bases"] = {**known["bases"], **dict.fromkeys(found.get("bases", []), "")}
        functions = {name: form for surface in surfaces for name, form in surface.functions.items()}
        return cls("any", classes, functions)

    def form(self, owner: str, name: str) -> str | None:
        """How the bindings describe a member: a signature, ``get``, ``get set``, ``class``, ``enum``; None for none."""
        if owner == MODULE:
            return {"__version__": "get str"}.get(name) or (
                "class" if name in self.classes else self.functions.get(name)
            )
        if f"{owner}.{name}" in self.classes:
            return "class"
        if owner not in self.classes:
            return None
        for one in (owner, *self.classes[owner].get("bases", ())):
            found = self.classes.get(one, {})
            if name in found.get("enum", {}):
                return "enum"
            if name in found.get("members", {}):
                return found["members"][name]
        return _ENUM_MEMBERS.get(name) if self.classes[owner].get("enum") else None

    def class_of(self, kind: str) -> str | None:
        """A class by the name that a signature gives it, which is sometimes that of C++."""
        kind = re.sub(r"^Optional\[(.*)\]$|\s*\|\s*None$", r"\1", kind.strip())
        if re.match(r"(?i)list\[", kind):
            inner = self.class_of(kind[5:-1])
            return f"list[{inner}]" if inner else None
        return next((name for name in (kind, kind.removeprefix("I")) if name in self.classes), None)

    @property
    def members(self) -> set[str]:
        """Names of all members of all classes."""
        return {name for found in self.classes.values() for name in found.get("members", {})}


@dataclass(frozen=True)
class Use:
    """One place where our code takes ``owner.name``.

    ``passed`` is how it is called: the count of positional arguments and the names of the others; None where it is
    not called. ``asked`` is true for ``getattr`` and ``hasattr``.
    """

    file: str
    line: int
    owner: str
    name: str
    asked: bool = False
    written: bool = False
    passed: tuple[int, tuple[str, ...]] | None = None

    @property
    def what(self) -> str:
        return self.name if self.owner == MODULE else f"{self.owner}.{self.name}"

    def __str__(self) -> str:
        return f"{self.file}:{self.line} {self.what}"


def problem(use: Use, surface: Surface) -> str | None:
    """Why a use does not fit a generation; None where it does."""
    form = surface.form(use.owner, use.name)
    if form is None:
        return f"{use}: TensorRT {surface.version} has no such name"
    if use.written and form != "value" and not form.startswith("get set"):
        return f"{use}: cannot be set in TensorRT {surface.version} ({form})"
    if use.passed is not None:
        if form == "class":
            form = surface.form(use.name if use.owner == MODULE else use.what, "__init__") or "()"
        if form.startswith("(") and not any(_takes(one, use.passed) for one in form.split(" | ")):
            return f"{use}: TensorRT {surface.version} takes {form}, got {use.passed}"
    return None


def _takes(form: str, passed: tuple[int, tuple[str, ...]]) -> bool:
    names = [name.strip() for name in form[1 : form.index(")")].split(",") if name.strip()]
    positional, keywords = passed
    plain = [name.removesuffix("=") for name in names]
    given = {*plain[:positional], *keywords}
    needed = {name for name in names if not name.endswith("=")}
    return positional <= len(names) and needed <= given and given <= set(plain)


@dataclass
class Reader:
    """Finds uses in one file."""

    file: str
    surface: Surface
    uses: set[Use] = field(default_factory=set)
    unknown: set[tuple[str, int]] = field(default_factory=set)

    def read(self, text: str) -> Reader:
        self._block(ast.parse(text).body, {})
        return self

    def _block(self, body: list[ast.stmt], scope: dict[str, str]) -> None:
        for statement in body:
            self._statement(statement, scope)

    def _statement(self, node: ast.stmt, scope: dict[str, str]) -> None:
        if isinstance(node, ast.FunctionDef):
            inner = {**scope, **_parameters(node)}
            self._block(node.body, inner)
            scope.update({name: kind for name, kind in inner.items() if name.startswith("self.")})
        elif isinstance(node, ast.ClassDef):
            self._class(node, scope)
        else:
            for expression in _expressions(node):
                self._visit(expression, scope)
            self._assign(node, scope)
            for block in _blocks(node):
                self._block(block, scope)

    def _class(self, node: ast.ClassDef, scope: dict[str, str]) -> None:
        bases = [kind for kind in (self._kind(base, scope) for base in node.bases) if kind]
        methods = [child for child in node.body if isinstance(child, ast.FunctionDef)]
        for base in bases:
            for method in methods:
                if not method.name.startswith("_"):
                    self._note(method, base.removeprefix("class "), method.name)
        inner = dict(scope)
        for _ in range(2):  # what __init__ learns of self, other methods use
            for child in node.body:
                self._statement(child, inner)

    def _assign(self, node: ast.stmt, scope: dict[str, str]) -> None:
        pairs: list[tuple[ast.expr, ast.expr]] = []
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                    pairs += zip(target.elts, node.value.elts, strict=True)
                else:
                    pairs.append((target, node.value))
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            pairs.append((node.target, node.value))
        for target, value in pairs:
            kind = self._kind(value, scope)
            if isinstance(target, ast.Attribute) and (owner := self._kind(target.value, scope)):
                self._note(target, owner, target.attr, written=True)
            elif isinstance(target, (ast.Name, ast.Attribute)):
                scope[ast.unparse(target)] = kind or ("" if _plain(value) else _seed(target))

    def _visit(self, expression: ast.expr, scope: dict[str, str]) -> None:
        inner = dict(scope)
        for node in ast.walk(expression):
            if isinstance(node, (ast.ListComp, ast.GeneratorExp, ast.DictComp, ast.SetComp)):
                self._comprehension(node, inner)
        for node in ast.walk(expression):
            if isinstance(node, ast.expr):
                kind = self._kind(node, inner)
                if isinstance(node, ast.Attribute) and not kind and not self._kind(node.value, inner):
                    self.unknown.add((node.attr, node.lineno))

    def _comprehension(self, node: ast.expr, scope: dict[str, str]) -> None:
        for part in node.generators:  # type: ignore[attr-defined]
            kind = self._kind(part.iter, scope) or ""
            if isinstance(part.target, ast.Name):
                scope[part.target.id] = kind[5:-1] if kind.startswith("list[") else ""

    def _kind(self, node: ast.expr, scope: dict[str, str]) -> str | None:
        """What an expression is: an object of a class, ``class X``, ``method`` or the module; None: nothing of it."""
        if isinstance(node, (ast.Name, ast.Attribute)):
            text = ast.unparse(node)
            if text in scope:
                return scope[text] or None
            if text in SEEDS and "." in text:
                return SEEDS[text]
        if isinstance(node, ast.Attribute) and (owner := self._kind(node.value, scope)):
            return self._member(node, owner, node.attr)
        if isinstance(node, ast.Call):
            return self._call(node, scope)
        if isinstance(node, ast.IfExp):
            return self._kind(node.body, scope) or self._kind(node.orelse, scope)
        if isinstance(node, ast.Subscript):
            kind = self._kind(node.value, scope) or ""
            inside = kind if isinstance(node.slice, ast.Slice) else kind[5:-1]
            return inside if kind.startswith("list[") else None
        if isinstance(node, ast.ListComp):
            self._comprehension(node, inner := dict(scope))
            kind = self._kind(node.elt, inner)
            return f"list[{kind}]" if kind else None
        return None

    def _call(self, node: ast.Call, scope: dict[str, str]) -> str | None:
        if isinstance(node.func, ast.Name) and node.func.id in ("getattr", "hasattr"):
            return self._asked(node, scope)
        kind = self._kind(node.func, scope)
        if kind is None:
            return None
        passed = (len(node.args), tuple(sorted(k.arg for k in node.keywords if k.arg)))
        if any(isinstance(argument, ast.Starred) for argument in node.args) or kind == MODULE:
            return None
        owner, _, name = kind.removeprefix("class ").removeprefix("method ").rpartition("/")
        # Called on the class, a method takes self as well.
        on_class = isinstance(node.func, ast.Attribute) and (self._kind(node.func.value, scope) or "").startswith(
            "class "
        )
        self._note(node, owner, name, passed=(passed[0] - on_class, passed[1]))
        if kind.startswith("class "):
            return name if owner == MODULE else f"{owner}.{name}"
        form = self.surface.form(owner, name) or ""
        return self.surface.class_of(form.rpartition(" -> ")[2])

    def _asked(self, node: ast.Call, scope: dict[str, str]) -> str | None:
        owner, name = self._kind(node.args[0], scope), node.args[1]
        if owner is None:
            return None
        if isinstance(name, ast.Constant):
            return self._member(node, owner, str(name.value), asked=True)
        kinds = [self._member(node, owner, one, asked=True) for one in COMPUTED[ast.unparse(name)]]
        return kinds[0] if kinds else None

    def _member(self, node: ast.expr, owner: str, name: str, *, asked: bool = False) -> str | None:
        owner = owner.removeprefix("class ").removeprefix(f"{MODULE}/").replace("/", ".")
        if owner.startswith(("method ", "list[")):
            return None
        self._note(node, owner, name, asked=asked)
        form = self.surface.form(owner, name)
        if form == "class":
            return f"class {owner}/{name}"
        if form == "enum":
            return owner
        if form is not None and form.startswith("("):
            return f"method {owner}/{name}"
        return self.surface.class_of(form.removeprefix("get").removeprefix(" set")) if form else None

    def _note(
        self,
        node: ast.AST,
        owner: str,
        name: str,
        *,
        asked: bool = False,
        written: bool = False,
        passed: tuple[int, tuple[str, ...]] | None = None,
    ) -> None:
        owner = owner.removeprefix("class ").removeprefix(f"{MODULE}/").replace("/", ".")
        self.uses.add(Use(self.file, node.lineno, owner, name, asked, written, passed))  # type: ignore[attr-defined]


def _plain(value: ast.expr) -> bool:
    """Whether an expression cannot be anything of TensorRT's: a constant, or an object of our own class."""
    named = value.func if isinstance(value, ast.Call) else None
    return isinstance(value, ast.Constant) or (isinstance(named, ast.Name) and named.id[0].isupper())


def _seed(target: ast.expr) -> str:
    return SEEDS.get(ast.unparse(target), "")


def _parameters(node: ast.FunctionDef) -> dict[str, str]:
    """Parameters of type Any that have a known name; all others are nothing of TensorRT's."""
    found = {}
    for argument in (*node.args.args, *node.args.kwonlyargs):
        annotation = ast.unparse(argument.annotation) if argument.annotation else "Any"
        untyped = "Any" in annotation or annotation == "ModuleType"
        found[argument.arg] = (SEEDS | PARAMETERS).get(argument.arg, "") if untyped else ""
    return found


def _expressions(node: ast.stmt) -> Iterator[ast.expr]:
    """Expressions of one statement, without those of the statements in it."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.expr):
            yield child
        elif isinstance(child, ast.withitem):
            yield child.context_expr


def _blocks(node: ast.stmt) -> Iterator[list[ast.stmt]]:
    for name in ("body", "orelse", "finalbody"):
        yield getattr(node, name, None) or []
    for handler in getattr(node, "handlers", []):
        yield handler.body
