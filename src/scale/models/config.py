"""Which models there are: the table that ships, or a user's own TOML file; what does not belong there is refused."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any, cast

from redline.core.errors import InputError
from redline.core.plain import JsonObject
from scale.models.spec import ModelSpec, Postprocessing

DEFAULT_FOLDER = Path("models")
_TABLES = ("model", "postprocess")
#: Key of the file, field of the spec, type, what it is in words.
_FIELDS: Mapping[str, tuple[str, type | tuple[type, ...], str]] = {
    "name": ("name", str, "text"),
    "file": ("path", str, "the path of a model"),
    "window": ("window_px", int, "a whole number of pixels"),
    "confidence": ("confidence", (int, float), "a number from 0 to 1"),
    "iou": ("iou", (int, float), "a number from 0 to 1"),
    "max_detections": ("max_detections", int, "a whole number"),
    "batch": ("batch", int, "a whole number"),
    "input": ("input_px", int, "a whole number of pixels"),
    "classes": ("class_names", (dict, list), 'names by index, such as { 0 = "Cell" }, or a list of names'),
}
_NEEDED = ("name", "file", "window")
_SETTINGS = {"nms": "nms_thres", "coverage": "cov_thres"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelTable:
    """Models, and what is done with the detections of each class."""

    models: tuple[ModelSpec, ...]
    postprocess: Mapping[str, Postprocessing]


def default_models(models_dir: str | Path | None = None) -> ModelTable:
    """The table that ships; files lie in ``models_dir``, else in ``models``."""
    text = resources.files("scale.models").joinpath("default.toml").read_text(encoding="utf-8")
    return _table("scale's own table of models", tomllib.loads(text), Path(models_dir or DEFAULT_FOLDER))


def read_models(path: str | Path, models_dir: str | Path | None = None) -> ModelTable:
    """The models that a TOML file names; ``file`` is relative to ``models_dir``, else to the TOML file's own folder.

    Raises:
        InputError: the file is missing, is no TOML, or has a key or a value that does not belong there; names it.
    """
    path = Path(path)
    try:
        value = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path} is not a file; expected a TOML file that names models") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not TOML: {error}") from error
    return _table(str(path), value, Path(models_dir) if models_dir is not None else path.parent)


def find_models(config: str | Path | None, models_dir: str | Path | None) -> ModelTable:
    """A user's own table where one is named, else the one that ships."""
    return default_models(models_dir) if config is None else read_models(config, models_dir)


def _table(where: str, value: JsonObject, folder: Path) -> ModelTable:
    for key in value:
        _check_key(key, _TABLES, f"{where}: key")
    entries = value.get("model")
    if not isinstance(entries, list) or not entries:
        raise InputError(f"{where} names no model; expected at least one table [[model]]")
    models = tuple(_model(f"{where}: model {index + 1}", entry, folder) for index, entry in enumerate(entries))
    names = [model.name for model in models]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{where}: two models are called {name!r}; name each differently")
    postprocess = _postprocess(where, value.get("postprocess", {}), models)
    return ModelTable(models=tuple(_with_settings(model, postprocess) for model in models), postprocess=postprocess)


def _model(where: str, entry: object, folder: Path) -> ModelSpec:
    if not isinstance(entry, dict):
        raise InputError(f"{where} is {entry!r}, expected a table [[model]]")
    found: dict[str, Any] = {}
    for key, value in entry.items():
        _check_key(key, tuple(_FIELDS), f"{where}: key")
        field, kind, words = _FIELDS[key]
        found[field] = _expect(value, kind, f"{where}: {key}", words)
    for key in _NEEDED:
        if _FIELDS[key][0] not in found:
            raise InputError(f"{where} has no {key}; add {key} = …")
    found["path"] = folder / found["path"]
    found["class_names"] = _classes(where, found.get("class_names", {}))
    try:
        return ModelSpec(**found)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def _classes(where: str, value: dict[str, Any] | list[Any]) -> dict[int, str]:
    pairs = list(value.items()) if isinstance(value, dict) else [(str(i), name) for i, name in enumerate(value)]
    for key, name in pairs:
        if not key.isdigit() or not isinstance(name, str):
            raise InputError(f'{where}: classes has {key} = {name!r}, expected an index and a name, such as 0 = "Cell"')
    return {int(key): name for key, name in pairs}


def _postprocess(where: str, value: object, models: tuple[ModelSpec, ...]) -> dict[str, Postprocessing]:
    if not isinstance(value, dict):
        raise InputError(f"{where}: postprocess is {value!r}, expected tables [postprocess.Class]")
    known = tuple(dict.fromkeys(name for model in models for name in model.class_names.values()))
    complete = all(model.class_names for model in models)  # else a file may name classes that nobody knows before
    found = {}
    for name, settings in value.items():
        if complete:
            _check_key(name, known, f"{where}: class in [postprocess]")
        at = f"{where}: postprocess.{name}"
        for key, share in _expect(settings, dict, at, "a table").items():
            _check_key(key, tuple(_SETTINGS), f"{at}: key")
            _expect(share, (int, float), f"{at}.{key}", "a number from 0 to 1")
        try:
            found[name] = Postprocessing(**{_SETTINGS[key]: share for key, share in settings.items()})
        except InputError as error:
            raise InputError(f"{at}: {error}") from error
    return found


def _with_settings(model: ModelSpec, postprocess: Mapping[str, Postprocessing]) -> ModelSpec:
    names = set(model.class_names.values())
    own = {name: settings for name, settings in postprocess.items() if not names or name in names}
    return replace(model, postprocess=own)


def _expect(value: object, kind: type | tuple[type, ...], where: str, words: str) -> Any:
    if not isinstance(value, kind) or isinstance(value, bool):
        raise InputError(f"{where} is {value!r}, expected {words}")
    return value


def _check_key(key: object, known: tuple[str, ...], what: str) -> None:
    if key in known:
        return
    close = difflib.get_close_matches(str(key), known, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]}?" if close else f"expected one of {', '.join(known)}"
    raise InputError(f"{what} {cast('str', key)!r} is not known; {hint}")
