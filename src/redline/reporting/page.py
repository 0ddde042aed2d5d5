"""What every page is made of: one file that holds its styles, scripts and plots, and lets nothing else in."""

from __future__ import annotations

import base64
import hashlib
import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import ModuleType

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from redline.core.packages import missing
from redline.reporting import formats
from redline.reporting.vega import Spec

Specs = dict[str, Spec]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """A number of the hero with what it was before."""

    label: str
    value: str
    unit: str
    aside: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """A bar of a bar chart, its length from 0 to 100."""

    title: str
    percent: float
    value: str
    aside: str
    recommended: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """A plot by its name among the page's specifications, and the same in words."""

    key: str
    words: str


def draw(specs: Specs, key: str, spec: Spec | None, words: str) -> Drawn | None:
    """Put a plot among the page's specifications; None where there is nothing to draw."""
    if spec is None:
        return None
    specs[key] = spec
    return Drawn(key=key, words=f"{words[:1].upper()}{words[1:]}")


def render(template: str, context: Mapping[str, object], *, styles: Sequence[str], scripts: Sequence[str]) -> str:
    """The text of a page.

    Args:
        template: Its name among the templates.
        context: What the template shows; ``specs`` are its plots by name.
        styles: Names of style sheets among the templates.
        scripts: Names of scripts among the templates; they run after Vega's.

    Raises:
        MissingDependencyError: ``vl-convert`` is not installed.
    """
    runtime = _vega()
    loader = PackageLoader("redline.reporting")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)

    def asset(name: str) -> str:
        return loader.get_source(environment, name)[0]

    signed = [_script(text) for text in (runtime, *map(asset, scripts))]
    return environment.get_template(template).render(
        **context,
        formats=formats,
        style=Markup("\n".join(map(asset, styles))),  # noqa: S704 (our own files)
        scripts=[script for script, _ in signed],
        script_sources=" ".join(source for _, source in signed),
    )


def _vega() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script that fetches nothing."""
    try:
        return _bundle(importlib.import_module("vl_convert"))
    except ImportError as error:
        raise missing("vl-convert-python") from error


@cache
def _bundle(vl_convert: ModuleType) -> str:
    return str(vl_convert.javascript_bundle(snippet="window.vegaEmbed = vegaEmbed;"))


def _script(text: str) -> tuple[Markup, str]:
    """A script and the source expression of a content security policy that lets it, and no other, run."""
    text = text.replace("</script", "<\\/script")
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return Markup(text), f"'sha256-{digest}'"  # noqa: S704 (our own file)
