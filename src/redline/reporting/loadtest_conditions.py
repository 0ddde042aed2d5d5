"""Under which conditions a load test was made, and how each figure of it was taken."""

from __future__ import annotations

from dataclasses import replace

from redline.loadtesting.results import LoadTest, Target
from redline.loadtesting.summary import Summary
from redline.reporting import formats
from redline.reporting.conditions import machine
from redline.reporting.facts import Group, known
from redline.reporting.loadtest_table import MODES, loads, modes

_TOOLS = {
    "open": "Redline's own generator",
    "locust": "Locust, FastHttpUser, in a process of its own",
    "ab": "ApacheBench, keep-alive",
}
_BODIES = {"image/jpeg": "JPEG images", "binary": "binary tensors", "json": "JSON tensors"}


def loadtest_conditions(summary: Summary) -> tuple[Group, ...]:
    """Targets, load, machine and versions; a fact that was not recorded is left out."""
    document = summary.document
    run = run_of(document)
    groups = [_target(target) for target in document.targets]
    groups += [Group("Load", _load(summary)), Group("Machine", machine(document.environment))]
    environment = document.environment
    versions = {"redline": document.redline, "Python": environment.python, **run.environment.versions}
    groups.append(Group("Versions", known(*versions.items())))
    return tuple(group for group in groups if group.facts)


def run_of(document: LoadTest) -> LoadTest:
    """What every page shows of its run; the document names the version of Redline itself."""
    environment = document.environment
    others = {name: text for name, text in environment.versions.items() if name != "redline"}
    return replace(document, environment=replace(environment, versions=others))


def methods(summary: Summary) -> tuple[tuple[str, str], ...]:
    """How every figure was taken, as pairs of a heading and a paragraph."""
    found = [("Load", _about_load(summary)), ("Latency", _about_latency(summary))]
    if len(summary.targets) > 1:
        found.append(("Ratios", _about_ratios()))
    found.append(("Knee", _about_knee(summary)))
    return (*found, ("Server's time", _about_server()), ("CPU and memory", _about_cost()))


def _target(target: Target) -> Group:
    facts = known(
        ("URL", target.url),
        ("file", target.path),
        ("size", f"{formats.megabytes(target.size_bytes)} MB" if target.size_bytes else None),
        ("precision", target.precision),
        ("model", target.model),
        ("version", target.version),
    )
    return Group(f"Target {target.name}", facts)


def _load(summary: Summary) -> tuple[tuple[str, str], ...]:
    document = summary.document
    curves = tuple((MODES[mode], ", ".join(load.label for load in loads(summary, mode))) for mode in modes(summary))
    body = f"{_BODIES.get(document.body.kind, document.body.kind)}, {formats.count(document.body.bytes)} bytes each"
    agreement = document.agreement
    return known(
        ("made by", _TOOLS.get(document.tool, document.tool)),
        *curves,
        ("requests", body),
        ("different inputs", document.body.inputs),
        ("inputs come from", agreement.source if agreement else None),
        ("objective", f"{document.slo_ms:g} ms" if document.slo_ms is not None else None),
        ("seed", document.seed),
    )


def _about_load(summary: Summary) -> str:
    told = []
    if any(mode != "closed" for mode in modes(summary)):
        told.append(
            "Open loop: requests are sent at a set rate whether or not the earlier ones were answered, at even "
            "distances (constant) or at random as independent users do (Poisson)."
        )
    if "closed" in modes(summary):
        told.append(
            "Closed loop: each user waits for an answer before asking again, so a slow server is asked less and looks "
            "better than it is."
        )
    if len(summary.targets) > 1:
        told.append("Windows of the targets take turns, so that a drift of the machine hits all alike.")
    return " ".join(told)


def _about_latency(summary: Summary) -> str:
    text = (
        f"Of requests that were answered with 200, all windows together. A p99 needs {formats.P99_SAMPLES} of them, a "
        "p99.9 a thousand."
    )
    if any(mode != "closed" for mode in modes(summary)):
        text += (
            " In an open loop it counts from when a request was meant to be sent, so that waiting for a connection or "
            "for a late generator is not hidden."
        )
    return text


def _about_ratios() -> str:
    return (
        "Over the first target, paired round by round. The interval is Student's over rounds, of 95 % confidence, "
        "and widened for what differs between any two processes; “the same” means that it lies within 5 % of 1, “not "
        "decided” that it holds 1, or reaches further than 15 % to both sides."
    )


def _about_knee(summary: Summary) -> str:
    if all(mode == "closed" for mode in modes(summary)):
        return "The fewest users with which 95 % of the most requests a second were answered."
    return (
        "The highest rate of arrivals at which at least 95 % of what was offered was answered in its time and at most "
        "1 % was lost. Beyond it the queue grows for as long as the load lasts."
    )


def _about_server() -> str:
    return (
        "How the server's own statistics grew during the windows, divided by the inferences in them. What the client "
        "sees besides is the network, HTTP, and waiting for a thread of the server."
    )


def _about_cost() -> str:
    return (
        "CPU seconds of all processes of the server, or of the load generator, over the requests or over the time; "
        "memory is what is resident. Known only of servers on the same machine."
    )
