"""Which class each file belongs to, out of a CSV file or of the names of folders."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from redline.core.errors import DataError
from redline.core.tensor import Signature

LABELS_FILE = "labels.csv"


@dataclass(frozen=True, slots=True)
class Labelling:
    """Class indices by file (None: nobody knows them) and a note for the samples' source."""

    by_file: dict[str, int] | None
    note: str = ""


def classes_of(signature: Signature) -> int | None:
    """How many classes a classifier's first output (batch, classes) tells apart; None where that is not its shape."""
    shape = signature.outputs[0].shape if signature.outputs else ()
    last = shape[-1] if len(shape) == 2 else None
    return last if isinstance(last, int) and last > 1 else None


def read_table(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file that has at least the columns file and label.

    Raises:
        DataError: the file is missing, is not UTF-8 text, lacks a column, or a row is too short.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            columns = reader.fieldnames or ()
            rows = [{name: value for name, value in row.items() if name is not None} for row in reader]
    except FileNotFoundError as error:
        raise DataError(f"{path} is not there; expected a CSV file with the columns file,label") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is not a readable CSV file ({error})") from error
    if not {"file", "label"} <= set(columns):
        raise DataError(f"{path} has the columns {', '.join(columns) or 'none'}, expected file,label")
    for number, row in enumerate(rows, start=2):
        if not row["file"] or not row["label"]:
            raise DataError(f"{path} line {number}: got an empty file or label")
    return rows


def read_labels(path: Path, folder: Path, *, classes: Sequence[str] | None, class_count: int | None) -> Labelling:
    """The labelling that a CSV file gives the files of ``folder``.

    A label is an index, or a name out of ``classes``; without ``classes``, names are taken in their order if there
    are as many as the model has classes.

    Raises:
        DataError: a broken table, a file that is missing or has two labels, or a name that is no class.
    """
    rows = read_table(path)
    if not rows:
        raise DataError(f"{path} has no rows, expected one for each labelled file")
    labels: dict[str, str] = {}
    for row in rows:
        name = Path(row["file"]).as_posix()
        if not (folder / name).is_file():
            raise DataError(f"{path} labels {name}, which is not in {folder}")
        if labels.setdefault(name, row["label"].strip()) != row["label"].strip():
            raise DataError(f"{path} gives {name} two labels: {labels[name]} and {row['label'].strip()}")
    indices = _indices(set(labels.values()), classes, class_count)
    if indices is None:
        some = ", ".join(sorted(set(labels.values()))[:3])
        raise DataError(
            f"{path} has labels by name ({some}, …) that are not the model's classes"
            f"{f' ({len(classes)} are known)' if classes else f' ({class_count})' if class_count else ''}; "
            "give indices from 0, or the names that the model knows"
        )
    return Labelling({name: indices[label] for name, label in labels.items()})


def labels_of_folders(files: Sequence[str], *, classes: Sequence[str] | None, class_count: int | None) -> Labelling:
    """The labelling by first folder, where the folders can be told to be the model's classes."""
    folders = {Path(name).parts[0] for name in files if len(Path(name).parts) > 1}
    loose = any(len(Path(name).parts) == 1 for name in files)
    if not folders or loose:
        return Labelling(None)
    indices = _indices(folders, classes, class_count)
    if indices is None:
        return Labelling(None, f" (its {len(folders)} folders are not the model's classes, so nothing is labelled)")
    return Labelling({name: indices[Path(name).parts[0]] for name in files})


def _indices(names: set[str], classes: Sequence[str] | None, class_count: int | None) -> dict[str, int] | None:
    if classes and names <= set(classes):
        return {name: list(classes).index(name) for name in names}
    if all(name.lstrip("-").isdecimal() for name in names):
        return {name: int(name) for name in names}
    if not classes and len(names) == class_count:
        return {name: index for index, name in enumerate(sorted(names))}
    return None
