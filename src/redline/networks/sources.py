"""Where a user's module comes from: a function in a file, a saved program, an optional package, a weights file."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import sys
import traceback
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import torch
from torch import Tensor, nn

from redline.core.errors import ArtifactError, InputError, MissingDependencyError
from redline.core.preprocess import Detection, Preprocess
from redline.networks.weights import kind_of, load_pickle, read_weights

_SEED = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A module as it was found, before Redline looks at what it takes.

    ``fixed_batch`` is the batch that a saved program insists on, None where it does not.
    """

    module: nn.Module
    example_inputs: tuple[Any, ...] | Mapping[str, Any] | None = None
    preprocess: Preprocess | None = None
    asset: str | None = None
    class_names: tuple[str, ...] | None = None
    detection: Detection | None = None
    fixed_batch: int | None = None
    from_file: bool = False
    notes: tuple[str, ...] = ()


def from_factory(path: Path, function: str) -> Source:
    """Call ``function`` of the Python file ``path``.

    It is called with PyTorch's random state set to a fixed seed, so that a randomly initialized model is the same
    in every process.

    Raises:
        InputError: the file or function is missing, its code fails, or it returns something else than an
            ``nn.Module`` or ``(nn.Module, example_inputs)``.
    """
    where = f"{path}:{function}"
    with _folder_on_path(path.parent), torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        factory = _function_of(_import_file(path), path, function)
        try:
            made = factory()
        except (Exception, SystemExit) as error:
            raise InputError(f"{where} failed: {_what(error, path)}") from error
    if isinstance(made, nn.Module):
        return Source(module=made)
    if isinstance(made, tuple) and len(made) == 2 and isinstance(made[0], nn.Module):
        return Source(module=made[0], example_inputs=_examples(made[1], where))
    raise InputError(f"{where} returned {kind_of(made)}, expected an nn.Module or (nn.Module, example inputs)")


def from_file(path: Path) -> Source:
    """Load a file that holds a whole program: ``torch.export`` (.pt2) or TorchScript.

    Raises:
        InputError: the file is missing, broken, a state dict, or a pickled module.
    """
    if not path.is_file():
        raise InputError(f"{path} is not a file; expected a .pt2 or TorchScript file")
    names = _zip_names(path)
    if any(name.endswith(("models/model.json", "serialized_exported_program.json")) for name in names):
        return _from_exported_program(path)
    if any(name.endswith("/constants.pkl") for name in names):
        return _from_torchscript(path)
    if path.suffix == ".pt2":
        raise ArtifactError(f"{path} is truncated or not a torch.export file ({path.stat().st_size} bytes)")
    raise _refuse_pickle(path)


def from_torchvision(name: str, weights: str | None) -> Source:
    """A model of torchvision by its registered name; ``weights="pretrained"`` downloads its default weights."""
    torchvision = _optional("torchvision")
    try:
        module = torchvision.models.get_model(name, weights="DEFAULT" if weights == "pretrained" else None)
    except ValueError as error:
        raise InputError(f"torchvision has no model {name!r}; see torchvision.models.list_models()") from error
    size = 299 if name == "inception_v3" else 224
    return Source(
        module=module,
        example_inputs=(torch.rand(1, 3, size, size),),
        preprocess=Preprocess(height_px=size, width_px=size),
        notes=() if weights else (_RANDOM,),
    )


def from_timm(name: str, weights: str | None) -> Source:
    """A model of timm by its name; ``weights="pretrained"`` downloads its default weights."""
    timm = _optional("timm")
    try:
        module = timm.create_model(name, pretrained=weights == "pretrained")
    except RuntimeError as error:
        raise InputError(f"timm has no model {name!r} ({first_line(error)}); see timm.list_models()") from error
    config = timm.data.resolve_model_data_config(module)
    channels, height, width = config["input_size"]
    preprocess = Preprocess(
        height_px=height,
        width_px=width,
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        resize_ratio=1 / config["crop_pct"],
    )
    return Source(
        module=module,
        example_inputs=(torch.rand(1, channels, height, width),),
        preprocess=preprocess if channels == 3 else None,
        notes=() if weights else (_RANDOM,),
    )


_RANDOM = "its weights are random: give a checkpoint with --weights FILE, or --weights pretrained to download one"


def apply_weights(module: nn.Module, path: Path) -> None:
    """Load a state dict (``.safetensors``, or a pickle of tensors only) into ``module``.

    Raises:
        InputError: the file cannot be read, is not a state dict, or does not fit the module.
    """
    state = read_weights(path).tensors
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        reasons = [line.strip() for line in str(error).splitlines()[1:] if line.strip()]
        reason = reasons[0][:200] if reasons else first_line(error)
        raise InputError(f"{path} does not fit the model: {reason}") from error


def first_line(error: BaseException) -> str:
    """The first line of an error's text that says something, or its type."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def _from_exported_program(path: Path) -> Source:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.export.load(path)
            module = program.module()
    except Exception as error:
        raise ArtifactError(f"{path} cannot be loaded as a torch.export file: {first_line(error)}") from error
    if any(_trains(node) for node in program.graph.nodes):
        raise InputError(f"{path} was exported in training mode (it has an active dropout); call eval() before export")
    users = set(program.graph_signature.user_inputs)
    shapes = [node.meta["val"].shape for node in program.graph.nodes if node.op == "placeholder" and node.name in users]
    first = shapes[0][0] if shapes and len(shapes[0]) else None
    arguments, keywords = program.example_inputs or ((), {})
    return Source(
        module=cast("nn.Module", module),
        example_inputs=_examples(dict(keywords) if keywords and not arguments else arguments, str(path)),
        fixed_batch=first if isinstance(first, int) else None,
        from_file=True,
    )


def _trains(node: torch.fx.Node) -> bool:
    return "dropout" in str(node.target) and len(node.args) > 2 and node.args[2] is True


def _from_torchscript(path: Path) -> Source:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = torch.jit.load(path, map_location="cpu")  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError) as error:
        raise ArtifactError(f"{path} cannot be loaded as TorchScript: {first_line(error)}") from error
    return Source(module=module, from_file=True)


def _refuse_pickle(path: Path) -> InputError:
    value = load_pickle(path)
    if isinstance(value, Mapping):
        return InputError(
            f"{path} holds weights without a model; give the model's name or file.py:function, and --weights {path}"
        )
    return InputError(f"{path} holds {kind_of(value)}, expected a .pt2 or TorchScript file")


def _zip_names(path: Path) -> list[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except (zipfile.BadZipFile, OSError):
        return []


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise InputError(f"{path} is not a file; expected a Python file with a function that returns an nn.Module")
    name = f"redline_user_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise InputError(f"{path} cannot be imported; expected a file that ends in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise InputError(f"{path} cannot be imported: {_what(error, path)}") from error
    return module


def _function_of(module: ModuleType, path: Path, name: str) -> Callable[[], Any]:
    found = getattr(module, name, None)
    if callable(found):
        return cast("Callable[[], Any]", found)
    own = [
        key for key, value in vars(module).items() if inspect.isfunction(value) and value.__module__ == module.__name__
    ]
    raise InputError(f"{path} has no function {name!r}; it has {', '.join(own) or 'no functions'}")


@contextmanager
def _folder_on_path(folder: Path) -> Iterator[None]:
    entry = str(folder.resolve())
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        with suppress(ValueError):  # the user's code may have taken it off
            sys.path.remove(entry)


def _examples(value: Any, where: str) -> tuple[Any, ...] | Mapping[str, Any]:
    if isinstance(value, Tensor):
        return (value,)
    if isinstance(value, list | tuple):
        return tuple(value)
    if isinstance(value, Mapping):
        return dict(value)
    raise InputError(f"{where}: example inputs are {kind_of(value)}, expected a tuple or dict of tensors")


def _what(error: BaseException, path: Path) -> str:
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == path]
    line = frames[-1].lineno if frames else getattr(error, "lineno", None)
    return f"{type(error).__name__}: {first_line(error)}" + (f" (line {line})" if line else "")


def _optional(package: str) -> Any:
    if importlib.util.find_spec(package) is None:
        raise MissingDependencyError(package, extra=package)
    try:
        return importlib.import_module(package)
    except (ImportError, RuntimeError, OSError) as error:
        raise InputError(
            f"{package} is installed but does not import beside torch {torch.__version__} ({first_line(error)}); "
            f"install the {package} that was built for this torch"
        ) from error
