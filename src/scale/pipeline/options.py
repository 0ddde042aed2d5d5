"""What a user may choose about the detection on slides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Literal

from redline.core.errors import InputError
from redline.core.plain import JsonObject
from scale.merging.settings import MergeSettings, Method, check_method
from scale.outputs import FORMATS
from scale.pipeline.finish import MergeOptions
from scale.pipeline.plan import PlanOptions
from scale.pipeline.run_options import RunOptions
from scale.slides.opening import Reader

DEFAULT_FORMATS = ("geojson", "parquet")


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """How strips became files: the method of merging, the formats, and the settings of each class in words."""

    method: str
    formats: tuple[str, ...]
    classes: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectOptions:
    """How slides are searched, and what is written.

    Attributes:
        plan: How a slide is cut up.
        section: One section, counted from 0; ``all`` of them; None is the whole slide.
        tissue: Leave windows out in which there is no tissue.
        method: Of merging.
        classes: Settings of merging by class name, before those that come with the models.
        formats: Of :data:`scale.outputs.FORMATS`.
        resume: Go on with what a result folder holds.
        fresh: Remove what a result folder holds.
        reader: Of slides.
        run: How the work is spread.
    """

    plan: PlanOptions = field(default_factory=PlanOptions)
    section: int | Literal["all"] | None = None
    tissue: bool = True
    method: Method = "drop-cut"
    classes: Mapping[str, MergeSettings] = field(default_factory=dict)
    formats: tuple[str, ...] = DEFAULT_FORMATS
    resume: bool = False
    fresh: bool = False
    reader: Reader = "auto"
    run: RunOptions = field(default_factory=RunOptions)

    def __post_init__(self) -> None:
        check_method(self.method)
        if self.resume and self.fresh:
            raise InputError("got --resume and --fresh, expected one of the two")
        if isinstance(self.section, int) and self.section < 0:
            raise InputError(f"got section {self.section}, expected 0 or more, or all")
        for name in self.formats:
            if name not in FORMATS:
                raise InputError(f"got format {name!r}, expected some of {', '.join(FORMATS)}")

    def asked(self) -> JsonObject:
        """What the content of a strip depends on; merging and writing do not count."""
        return {**asdict(self.plan), "section": self.section, "tissue": self.tissue, "reader": self.reader}

    def written(self) -> Written:
        """What the files depend on besides."""
        classes = {name: repr(settings) for name, settings in sorted(self.classes.items())}
        return Written(method=self.method, formats=self.formats, classes=classes)

    def merge(self) -> MergeOptions:
        """How boxes are merged."""
        return MergeOptions(method=self.method, classes=self.classes)
